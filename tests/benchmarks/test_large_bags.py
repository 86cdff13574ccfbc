"""Tests of tests/benchmarks/large_bags.py at small sizes."""

import pytest

from tests.benchmarks.large_bags import ROWS, measure, run


@pytest.mark.parametrize("name", ROWS)
def test_large_bags_benchmark_runs_every_row(name):
    row = run(name, 100)
    assert (row["row"], row["instances"]) == (name, 100)
    assert row["seconds"] > 0


@pytest.mark.slow(buys="a bag of 60,000 instances stays out of memory")
def test_bag_inferer_keeps_a_large_bag_out_of_memory():
    """Compare the memory of two rows by 60,000 x 1,024 float32 features (0.23 GiB), with half of it as tolerance."""
    whole, chunks = (measure(name, 60_000, threads=1) for name in ("abmil", "abmil_from_file"))
    assert whole["instances"] == chunks["instances"] == 60_000
    assert whole["peak_gib"] - chunks["peak_gib"] > 0.115
