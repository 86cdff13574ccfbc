"""Failures during a run: several writers, bags that vanish, workers that die."""

import multiprocessing
import os
import re
import signal
import time
import traceback

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset

from monai_mil_ext.data import BagCollate, FeatureCache, read_bag, write_bag
from monai_mil_ext.transforms import LoadBagd
from tests.data.cohort_files import write_bags

PROCESSES = multiprocessing.get_context("fork")
ITEMS = [{"case_id": f"c{i}", "image": float(i)} for i in range(12)]


class Slow:
    """Slow transform that logs a line for each call."""

    def __init__(self, log):
        self.log = str(log)

    def __call__(self, item):
        with open(self.log, "a") as log:
            log.write(f"{item['case_id']}\n")
        time.sleep(0.05)
        return {**item, "image": torch.full((500, 20), item["image"])}


def fill(folder, log, backwards, together):
    together.wait(60)
    items = ITEMS[::-1] if backwards else ITEMS
    FeatureCache(folder, Slow(log), fingerprint="f" * 64, progress=False)(items)


def rewrite(path, value, until):
    while time.time() < until:
        write_bag(path, {"features": np.full((2000, 50), value, np.float32)})


def test_feature_cache_is_filled_by_two_processes(tmp_path):
    log = tmp_path / "log"
    together = PROCESSES.Barrier(2)
    writers = [PROCESSES.Process(target=fill, args=(tmp_path / "cache", log, back, together)) for back in (False, True)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    files = sorted((tmp_path / "cache" / ("f" * 12)).iterdir())
    assert [file.name for file in files] == sorted(f"{item['case_id']}.h5" for item in ITEMS)
    for item in ITEMS:
        features = read_bag(tmp_path / "cache" / ("f" * 12) / f"{item['case_id']}.h5")["features"]
        assert torch.equal(features, torch.full((500, 20), item["image"]))
    calls = log.read_text().split()
    assert set(calls) == {item["case_id"] for item in ITEMS}
    assert len(calls) < 2 * len(ITEMS), "features of the other process were computed again"


def test_read_bag_never_meets_half_a_file(tmp_path):
    """Two processes overwrite one file repeatedly; a reader gets the complete file of one of them."""
    path = tmp_path / "a.h5"
    write_bag(path, {"features": np.zeros((2000, 50), np.float32)})
    until = time.time() + 1.5
    writers = [PROCESSES.Process(target=rewrite, args=(path, value, until)) for value in (1, 2)]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        features = read_bag(path)["features"]
        assert features.shape == (2000, 50)
        seen |= set(features.unique().tolist())
        assert len(features.unique()) == 1
    assert all(writer.exitcode == 0 for writer in writers)
    assert seen > {1} or seen > {2}
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


@pytest.mark.parametrize(
    ("harm", "rule", "workers"),
    [
        (os.remove, "must be a bag file that exists, got 'c3.h5'", 0),
        (os.remove, "must be a bag file that exists, got 'c3.h5'", 1),
        (lambda path: os.truncate(path, 600), "must be .* 'c3.h5'", 0),
        (
            lambda path: write_bag(path, {"features": np.full((2, 3), np.nan)}),
            "finite features, got 6 .* in 'c3.h5'",
            0,
        ),
    ],
    ids=["gone", "gone for a worker", "cut", "nan"],
)
def test_load_bagd_names_a_bag_damaged_during_an_epoch(tmp_path, harm, rule, workers):
    write_bags(tmp_path, {f"c{i}": 2 for i in range(6)})
    data = Dataset([{"image": str(tmp_path / f"c{i}.h5"), "case_id": f"c{i}"} for i in range(6)], LoadBagd("image"))
    loader = DataLoader(
        data, num_workers=workers, collate_fn=BagCollate("image"), prefetch_factor=1 if workers else None
    )
    batches = iter(loader)
    assert next(batches)["case_id"] == ["c0"]
    harm(tmp_path / "c3.h5")
    with pytest.raises((RuntimeError, ValueError, FileNotFoundError)) as caught:
        list(batches)
    assert re.search(rule, "".join(traceback.format_exception(caught.value)))


class Dies:
    """Transform that kills its worker, as the system does when memory is short."""

    def __call__(self, item):
        os.kill(os.getpid(), signal.SIGKILL)


def load_with_a_dying_worker(report):
    data = Dataset([{"image": torch.ones(2, 3), "case_id": f"c{i}"} for i in range(6)], Dies())
    try:
        list(DataLoader(data, num_workers=1, collate_fn=BagCollate("image")))
    except RuntimeError as error:
        report.write_text(str(error))


def test_load_bagd_in_a_dying_worker_ends_the_epoch(tmp_path):
    """Run in a separate process, since PyTorch raises from a signal handler at any point of the program."""
    process = PROCESSES.Process(target=load_with_a_dying_worker, args=(tmp_path / "report",))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert re.match(
        r"DataLoader worker \(pid.*(killed by signal: Killed|exited unexpectedly)", (tmp_path / "report").read_text()
    )
