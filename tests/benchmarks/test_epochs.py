"""Tests of the benchmark of epochs, on few bags."""

import pytest

from tests.benchmarks.epochs import MUSK1, _musk_like, disk_epoch, sampled_epoch, small_bags_epoch


def test_musk_like_has_the_published_counts_of_musk1():
    sizes = [len(bag["image"]) for bag in _musk_like()]
    assert (len(sizes), sum(sizes), min(sizes), max(sizes)) == (MUSK1["bags"], MUSK1["instances"], 2, 40)


def test_small_bags_epoch_compares_trainer_and_loop():
    row = small_bags_epoch(batch_size=32, epochs=1, repeats=1)
    assert row.detail == {"steps": 3, "epochs": 1}
    trainer, loop = (seconds["user"] + seconds["system"] for seconds in row.seconds.values())
    assert row.value == pytest.approx(trainer / loop, rel=1e-2)


def test_disk_epoch_measures_the_time_of_waiting():
    row = disk_epoch(num_bags=6, longest=100, workers=0, repeats=6)
    assert 0 < row.interval[0] <= row.value <= row.interval[1] < 1
    assert row.turns == 6
    assert row.seconds["epoch"]["wall"] >= row.detail["total_s"] - 0.001
    assert row.value == pytest.approx(row.detail["waiting_s"] / row.detail["total_s"], abs=0.1)
    assert 6 * 5 <= row.detail["instances"] <= 6 * 100


def test_sampled_epoch_measures_waiting_and_bytes():
    measured = sampled_epoch(num_bags=3, instances=3000, block_size=64, workers=0, repeats=2)
    assert 0 < measured.value < 1
    assert measured.detail["bytes_read"] < 1.5
