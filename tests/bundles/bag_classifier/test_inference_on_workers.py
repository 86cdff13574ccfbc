"""Tests of the inference of bag_classifier on workers of Dask: files are those of one process, also after a kill."""

import csv
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import distributed
import numpy as np
import pytest
from monai.engines import PrepareBatchExtraInput

from monai_mil_ext.apps.bundle import save_model
from monai_mil_ext.data import InstanceSource, write_bag
from monai_mil_ext.networks.nets import ABMIL
from tests.bundles.small_bags import BUNDLE, infer_bags
from tests.utils.dask_clusters import cluster, processes

F = 8
SIZES = {"a": 3, "b": 1, "c": 5, "d": 2}


class KillFirst(PrepareBatchExtraInput):
    """Preparation of a batch that kills its process by SIGKILL at the first try of the bag b."""

    def __init__(self, folder):
        super().__init__({"mask": "mask"})
        self.folder = Path(folder)

    def __call__(self, batchdata, *args, **kwargs):
        """Note the process of each try."""
        (case,) = batchdata["case_id"]
        tries = self.folder / f"{case}.txt"
        is_first = not tries.exists()
        with tries.open("a") as file:
            file.write(f"{os.getpid()}\n")
        if case == "b" and is_first:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(batchdata, *args, **kwargs)


class LoseEach(PrepareBatchExtraInput):
    """Preparation of a batch that raises what Dask raises when each process of the bag b was killed."""

    def __call__(self, batchdata, *args, **kwargs):
        """Prepare the batch of another bag."""
        if batchdata["case_id"] == ["b"]:
            raise distributed.KilledWorker("key", SimpleNamespace(address="tcp://lost"), 3)
        return super().__call__(batchdata, *args, **kwargs)


@pytest.fixture
def infer(monkeypatch, tmp_path):
    """Infer bags by untrained weights, and return the bytes of the tables."""
    monkeypatch.chdir(BUNDLE)
    draw = np.random.default_rng(0)
    for name, size in SIZES.items():
        write_bag(tmp_path / "bags" / f"{name}.h5", {"features": draw.normal(size=(size, F)).astype(np.float32)})
    task = {"kind": "classification", "num_classes": 2, "class_names": ["low", "high"]}
    save_model(tmp_path / "m", ABMIL(F, 2, hidden_size=128), sources=[InstanceSource(width=F)], task=task)

    def run(name, error=None, **override):
        infer_bags(tmp_path / "bags", tmp_path / "m", tmp_path / name, error, **override)
        return {file.name: file.read_text() for file in (tmp_path / name).iterdir()}

    return run


def test_bag_classifier_inference_on_dask_workers_writes_the_same_files(infer, tmp_path):
    write_bag(tmp_path / "bags" / "aa.h5", {"features": np.ones((3, 2 * F), dtype=np.float32)})
    (tmp_path / "bags" / "cc.h5").write_bytes(b"no bag")
    write_bag(tmp_path / "bags" / "e.h5", {"features": np.zeros((3, F), dtype=np.float32)})
    error = "every bag must get a prediction, got none for 2 of 7:\n  'aa' is unreadable: features must have 8 columns"
    serial = infer("serial", error)
    with cluster({}, {}) as address:
        assert infer("dask", error, scheduler=address) == serial
    assert serial.keys() == {"predictions.csv", "instances.csv"}
    rows = {row["case_id"]: row for row in csv.DictReader(serial["predictions.csv"].splitlines())}
    assert list(rows) == ["a", "aa", "b", "c", "cc", "d", "e"]
    assert {case: row["notes"] for case, row in rows.items() if row["notes"]} == {
        "e": "all features are 0, as if their encoding failed"
    }
    assert len(serial["instances.csv"].splitlines()) == 1 + sum(SIZES.values()) + 3


@pytest.mark.slow(buys="a bag whose worker was killed is inferred again, by another process")
def test_bag_classifier_inference_after_a_worker_was_killed_writes_the_same_files(infer, tmp_path):
    serial = infer("serial")
    prepare = {"_target_": f"{__name__}.KillFirst", "folder": str(tmp_path)}
    with processes(2) as address:
        assert infer("dask", scheduler=address, prepare_batch=prepare) == serial
    tries = (tmp_path / "b.txt").read_text().split()
    assert len({*tries}) == 2
    assert str(os.getpid()) not in tries


def test_bag_classifier_inference_of_a_bag_that_loses_each_worker_gives_a_row(infer):
    prepare = {"_target_": f"{__name__}.LoseEach", "extra_keys": {"mask": "mask"}}
    error = "got none for 1 of 4:\n  'b' is failed: the process was killed each time, perhaps for lack of memory"
    with cluster({}, {}) as address:
        files = infer("dask", error, scheduler=address, prepare_batch=prepare)
    rows = csv.DictReader(files["predictions.csv"].splitlines())
    assert [row["status"].partition(":")[0] for row in rows] == ["done", "failed", "done", "done"]
