"""Tests of tests/benchmarks/large_bags.py at small sizes."""

import pytest
import torch
from torch.testing import assert_close

from tests.benchmarks.large_bags import FEATURES, ROWS, abmil, abmil_in_chunks, measure, run


@torch.no_grad()
def test_bag_inferer_chunks_of_abmil_equal_abmil():
    whole, chunks, x = abmil().eval(), abmil_in_chunks().eval(), torch.randn(1, 20, FEATURES)
    chunks.encoder.load_state_dict(whole.embed.state_dict())
    chunks.aggregator.load_state_dict({k: v for k, v in whole.state_dict().items() if not k.startswith("embed.")})
    assert_close(chunks(x), whole(x))


@pytest.mark.parametrize("name", ROWS)
def test_large_bags_benchmark_runs_every_row(name):
    row = run(name, 100)
    assert (row["row"], row["instances"]) == (name, 100)
    assert row["seconds"] > 0


@pytest.mark.slow(buys="a bag of 60,000 instances stays out of memory")
def test_bag_inferer_keeps_a_large_bag_out_of_memory():
    """Compare the memory of two rows by 60,000 x 1,024 float32 features (0.23 GiB), with half of it as tolerance."""
    whole, chunks = (measure(name, 60_000, threads=1) for name in ("abmil", "abmil_in_chunks"))
    assert whole["instances"] == chunks["instances"] == 60_000
    assert whole["peak_gib"] - chunks["peak_gib"] > 0.115
