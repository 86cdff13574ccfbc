"""Tests of tasks on Dask workers: results, and requests that no worker can meet."""

import logging
import os
from functools import partial
from types import SimpleNamespace

import distributed
import pytest

from monai_mil_ext.utils import dask_tasks, run_tasks
from tests.utils.dask_clusters import cluster


def square(task):
    if task < 0:
        raise ValueError("`task` must be positive.")
    return task**2


def name_of_first(folder, task):
    """Return the name of a file, which is below the folder from which the caller's relative paths start."""
    return os.listdir(folder)[task]


@pytest.fixture(scope="module")
def address():
    with cluster({"resources": {"GPU": 1}}, {}) as address:
        yield address


def test_run_tasks_yields_the_results_of_the_workers(address, tmp_path):
    assert sorted(run_tasks(square, range(5), scheduler=address, folder=tmp_path)) == [(i, i**2) for i in range(5)]
    assert [*run_tasks(square, [3], scheduler=address, gpus=1, folder=tmp_path)] == [(0, 9)]
    assert [*run_tasks(square, [], scheduler=address, folder=tmp_path)] == []
    assert [*tmp_path.iterdir()] == []


def test_run_tasks_raises_the_error_of_a_task(address, tmp_path):
    with pytest.raises(ValueError, match="`task` must be positive"):
        [*run_tasks(square, [1, -1], scheduler=address, folder=tmp_path)]


def test_run_tasks_keeps_relative_paths_on_workers(address, tmp_path, monkeypatch):
    (tmp_path / "bags").mkdir()
    (tmp_path / "bags" / "a.h5").touch()
    monkeypatch.chdir(tmp_path)
    assert [*run_tasks(partial(name_of_first, "bags"), [0], scheduler=address)] == [(0, "a.h5")]


def test_a_folder_in_an_object_store_is_no_folder_of_this_machine(address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [*run_tasks(square, [2], scheduler=address, folder="memory://bucket/out")] == [(0, 4)]
    assert [*tmp_path.iterdir()] == []


def test_a_request_for_more_gpus_than_a_worker_has_is_refused_at_once(address, tmp_path):
    with pytest.raises(ValueError, match=r"`gpus` must be at most what one worker has, 1 \(.*\), got 2"):
        [*run_tasks(square, [1], scheduler=address, gpus=2, folder=tmp_path)]


@pytest.mark.parametrize(
    ("workers", "message"),
    [
        ([], "`scheduler` must have a worker, got none"),
        ([{}, {"nthreads": 4}], r"workers with one thread \(--nthreads 1\), .* got 4 threads"),
    ],
)
def test_a_cluster_that_cannot_do_the_tasks_is_refused_at_once(tmp_path, workers, message):
    with cluster(*workers) as address, pytest.raises(ValueError, match=message):
        [*run_tasks(square, [1], scheduler=address, folder=tmp_path)]


@pytest.mark.parametrize(
    ("fact", "message"),
    [
        (ModuleNotFoundError("No module"), "this package installed, got ModuleNotFoundError from 1 of 2"),
        ({"versions": {"torch": "1.0"}, "shared": True}, r"workers with the versions .*, got {'torch': '1.0'}"),
        ({"versions": dask_tasks._versions(), "shared": False}, "at the same path, got 1 of 2 that don't"),
    ],
)
def test_a_worker_with_other_facts_is_refused(fact, message):
    same = dask_tasks._facts(".", __file__)
    dask_tasks._check_facts([same, same])
    with pytest.raises(ValueError, match=message):
        dask_tasks._check_facts([same, fact])


@pytest.mark.parametrize("scheduler", ["", "remote", "host:8786", "tcp://", "file:///a"])
def test_an_address_of_another_form_is_refused(scheduler):
    with pytest.raises(ValueError, match=r"`scheduler` must be local or an address such as tcp://host:8786, got"):
        run_tasks(square, [1], scheduler=scheduler)


def test_a_scheduler_that_does_not_run_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(dask_tasks, "TIMEOUT", 0.5)
    with pytest.raises(ValueError, match="`scheduler` must be the address of a running Dask scheduler, got 'tcp://127"):
        [*run_tasks(square, [1], scheduler="tcp://127.0.0.1:9", folder=tmp_path)]


def test_gpus_that_this_machine_lacks_are_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"`gpus` must be at most the number of GPUs of this machine, \d+, got 99"):
        [*run_tasks(square, [1], scheduler="local", gpus=99, folder=tmp_path)]


def test_progress_is_not_lost_between_messages_on_connections(caplog):
    logger, before = logging.getLogger("distributed.scheduler"), logging.getLogger("distributed").level
    with caplog.at_level(logging.INFO, logger="distributed"):
        with dask_tasks._warnings_only():
            logger.info("Registered a worker")
            logger.warning("Lost a worker")
        assert logging.getLogger("distributed").level == logging.INFO
    assert caplog.messages == ["Lost a worker"]
    assert logging.getLogger("distributed").level == before


def lose(folder, task):
    """Raise what Dask raises for a lost worker: at the first try of task 1, and at each try of task 2."""
    tries = folder / f"{task}.txt"
    tries.open("a").write("x")
    if task == 2 or (task == 1 and tries.read_text() == "x"):
        raise distributed.KilledWorker("key", SimpleNamespace(address="tcp://lost"), 3)
    return task


def test_a_lost_task_is_done_again_alone_and_one_that_kills_each_worker_is_reported(address, tmp_path):
    options = {"scheduler": address, "folder": tmp_path}
    outcomes = [*run_tasks(partial(lose, tmp_path), range(4), **options, if_killed="killed")]
    assert sorted(outcomes[:2]) == [(0, 0), (3, 3)]
    assert sorted(outcomes[2:]) == [(1, 1), (2, "killed")]
    with pytest.raises(RuntimeError, match="the process of task 3 was killed each time"):
        [*run_tasks(partial(lose, tmp_path), range(4), **options)]
