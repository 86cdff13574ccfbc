"""Tests of ChunkLoader: order of the rows for any timing of the workers, and reuse of buffers."""

import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset

from monai_mil_ext.data import ChunkLoader

ROWS = torch.arange(23 * 6, dtype=torch.int32).reshape(23, 2, 3)


class Bag(Dataset):
    """Bag of rows whose chunks at ``slow`` take a while and at ``broken`` fail."""

    def __init__(self, slow=(), broken=None, wide=None):
        self.slow, self.broken, self.wide = slow, broken, wide

    def __len__(self):
        return len(ROWS)

    def __getitem__(self, rows):
        if rows.start in self.slow:
            time.sleep(0.1)
        if self.broken is not None and rows.start == self.broken:
            raise ValueError("`coords` must lie in the slide, got (7, 7).")
        chunk = ROWS[rows]
        return torch.cat([chunk, chunk], 1) if self.wide is not None and rows.start == self.wide else chunk


@given(chunk_size=st.integers(1, 30))
def test_chunk_loader_yields_all_rows_in_order(chunk_size):
    loader = ChunkLoader(Bag(), chunk_size)
    chunks = list(loader)
    assert torch.equal(torch.cat(chunks), ROWS)
    assert len(chunks) == len(loader)
    assert {len(chunk) for chunk in chunks[:-1]} <= {chunk_size}


@pytest.mark.parametrize(("num_workers", "slow"), [(1, ()), (2, range(0, 23, 4)), (2, (0, 10, 22))])
def test_chunk_loader_keeps_the_order_with_slow_workers(num_workers, slow):
    kept = []
    for number, chunk in enumerate(ChunkLoader(Bag(slow), 2, num_workers)):
        if number in (1, 6):
            time.sleep(0.2)  # workers run as far ahead as they can
        kept.append(chunk.clone())
    assert torch.equal(torch.cat(kept), ROWS)


def test_chunk_loader_reuses_buffers():
    places = [chunk.data_ptr() for chunk in ChunkLoader(Bag(), 2, num_workers=1)]
    assert len(places) == 12
    assert len(set(places)) == 4


def test_chunk_loader_yields_chunks_that_fit_no_buffer():
    shapes = [tuple(chunk.shape) for chunk in ChunkLoader(Bag(wide=4), 4, num_workers=1)]
    assert shapes == [(4, 2, 3), (4, 4, 3), *[(4, 2, 3)] * 3, (3, 2, 3)]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_chunk_loader_raises_errors_unchanged_and_in_order(num_workers):
    chunks = iter(ChunkLoader(Bag(broken=8), 4, num_workers))
    assert [len(next(chunks)) for _ in range(2)] == [4, 4]
    with pytest.raises(ValueError, match=r"^`coords` must lie in the slide, got \(7, 7\)\.$"):
        next(chunks)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_chunk_loader_of_an_empty_bag(num_workers):
    assert list(ChunkLoader(ROWS[:0], 4, num_workers)) == []


def test_chunk_loader_refuses_invalid_numbers():
    with pytest.raises(ValueError, match="`chunk_size` must be a positive integer, got 0"):
        ChunkLoader(ROWS, 0)
    with pytest.raises(ValueError, match="`num_workers` must be an integer from 0, got -1"):
        ChunkLoader(ROWS, 1, -1)
