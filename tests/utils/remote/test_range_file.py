"""Tests of reads by ranges of bytes."""

import io

import numpy as np
import pytest

from monai_mil_ext.utils.remote import ObjectPath, RangeFile
from monai_mil_ext.utils.remote.range_file import FREE, WASTE, merge_ranges

DATA = np.random.default_rng(0).integers(0, 256, 3_000_000, dtype=np.uint8).tobytes()


@pytest.fixture(params=["s3", "memory"])
def file(request):
    store = request.getfixturevalue(request.param)
    path = ObjectPath(store if request.param == "memory" else store.root) / "a.bin"
    path.write_bytes(DATA)
    return RangeFile(path)


def test_any_read_is_that_of_a_file(file):
    local, rng = io.BytesIO(DATA), np.random.default_rng(1)
    for _ in range(40):
        start, size = int(rng.integers(0, len(DATA))), int(10 ** rng.uniform(0, 5))
        assert (file.seek(start), file.read(size)) == (local.seek(start), local.read(size))
        assert file.tell() == local.tell()
    assert file.seek(-5, io.SEEK_END) == len(DATA) - 5
    assert [file.read(100), file.read(100), file.readable(), file.seekable()] == [DATA[-5:], b"", True, True]


def test_ranges_are_those_of_the_object_in_few_requests(file):
    starts = np.sort(np.random.default_rng(2).choice(len(DATA) - 100, 50, replace=False))
    sizes = np.random.default_rng(3).integers(0, 100, 50)
    parts = file.read_ranges(starts, sizes)
    assert [bytes(p) for p in parts] == [DATA[a : a + n] for a, n in zip(starts, sizes, strict=True)]
    assert file.num_requests < 50
    assert file.bytes_read <= sizes.sum() + FREE
    assert file.read_ranges([], []) == []
    with pytest.raises(ValueError, match="`starts` and `sizes` must be ranges in the object"):
        file.read_ranges([len(DATA) - 1], [2])


def test_small_reads_of_an_index_fetch_what_is_near_and_keep_it(file):
    for start in (0, 100, 8, 30_000):
        file.read_at(start, 8)
    assert (file.num_requests, file.bytes_read) == (1, 1 << 15)
    file.read_at(2_000_000, 8)
    file.read_at(2_000_100, 500)
    assert (file.num_requests, file.bytes_read) == (2, (1 << 15) + (1 << 12))


def test_reads_ahead_need_no_more_requests(file):
    file.read_ahead([1_000_000, 2_000_000], [50_000, 50_000])
    before = file.num_requests
    assert file.read_at(2_000_010, 49_000) == DATA[2_000_010:2_049_010]
    assert file.read_at(1_000_000, 50_000) == DATA[1_000_000:1_050_000]
    assert file.num_requests == before


def test_an_object_that_was_replaced_by_a_shorter_one_is_noticed(file):
    ObjectPath(file.path).write_bytes(DATA[:1000])
    with pytest.raises(OSError, match="must"):
        file.read_ranges([2_000_000], [100])


@pytest.mark.parametrize("seed", range(5))
def test_merged_ranges_waste_a_bounded_number_of_bytes(seed):
    rng = np.random.default_rng(seed)
    starts = np.cumsum(rng.integers(2000, 100_000, 300))
    sizes = rng.integers(1, 2000, 300)
    group = merge_ranges(starts, sizes)
    fetched = sum((starts + sizes)[group == g].max() - starts[group == g].min() for g in range(group[-1] + 1))
    assert fetched <= sizes.sum() + max(FREE, WASTE * sizes.sum())
    assert (np.diff(group) >= 0).all()
    assert group[-1] < 299
