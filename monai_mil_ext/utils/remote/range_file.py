"""Object of a store as a file for HDF5, of which only the requested ranges of bytes are fetched."""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .object_path import ObjectPath
from .store import StoreError, open_store, store_errors

__all__ = ["RangeFile", "merge_ranges"]

HEAD = 1 << 15  # bytes that are fetched at once from the start of the file, where HDF5 has its headers
NODE = 1 << 12  # bytes that are fetched at least elsewhere: a node of an index of chunks has 2.6 kB
NUM_BLOCKS = 4096  # of these sizes that are kept
FREE = 1 << 18  # bytes that any request may fetch in vain, less than one more request costs
WASTE = 2  # further bytes in vain for each wanted one
BATCH = 64  # ranges that are fetched at the same time

Offsets = NDArray[np.int64]


class RangeFile(io.RawIOBase):
    """Readable file of an object, that fetches ranges of bytes and counts them.

    Small reads, those of the metadata of HDF5, fetch 4 KiB, the first one 32 KiB, which are kept. Larger ones are
    fetched as they are. :py:meth:`read_ranges` fetches many ranges at the same time.

    Args:
        path: the object.
        size: its size in bytes, if it is known.

    Example:
        >>> _ = ObjectPath("memory://bucket/a.bin").write_bytes(bytes(range(100)))
        >>> file = RangeFile("memory://bucket/a.bin")
        >>> [list(part) for part in file.read_ranges([3, 90], [2, 1])], file.bytes_read <= 100
        ([[3, 4], [90]], True)
    """

    def __init__(self, path: str | os.PathLike[str], size: int | None = None) -> None:
        super().__init__()
        self.path = ObjectPath(path)
        self.size = self.path.stat().st_size if size is None else size
        self.bytes_read = 0
        self.num_requests = 0
        self.error: StoreError | FileNotFoundError | None = None  # HDF5 hides the errors of a read
        self._store, self._key = open_store(str(self.path))
        self._position = 0
        self._blocks: tuple[list[int], list[bytes]] = ([], [])  # ascending starts, and what is kept from there on
        self._ahead: tuple[list[int], list[bytes]] = ([], [])

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position of the next read."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position of the next read."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, target: Any) -> int:
        """Read at the position into a buffer, and return the number of bytes."""
        view = memoryview(target).cast("B")
        count = max(0, min(len(view), self.size - self._position))
        try:
            view[:count] = self.read_at(self._position, count)
        except (StoreError, FileNotFoundError) as error:
            self.error = error
            raise
        self._position += count
        return count

    def read_at(self, start: int, size: int) -> bytes:
        """Return the bytes of one range."""
        for starts, parts in (self._ahead, self._blocks):
            i = bisect_right(starts, start) - 1
            if i >= 0 and start + size <= starts[i] + len(parts[i]):
                return parts[i][start - starts[i] :][:size]
        least = HEAD if start < HEAD else NODE
        content = self._fetch([start], [min(self.size, start + max(size, least))])[0]
        if size < least:
            if len(self._blocks[0]) == NUM_BLOCKS:
                self._blocks = ([], [])
            i = bisect_right(self._blocks[0], start)
            self._blocks[0].insert(i, start)
            self._blocks[1].insert(i, content)
        return content[:size]

    def read_ranges(self, starts: Sequence[int] | Offsets, sizes: Sequence[int] | Offsets) -> list[memoryview]:
        """Return the bytes of ranges in ascending order; close ones are fetched together, see :py:func:`merge_ranges`.

        Raises:
            StoreError: when the store does not answer.
            ValueError: when a range is not in the object.
        """
        begin, length = np.asarray(starts, np.int64), np.asarray(sizes, np.int64)
        if not len(begin):
            return []
        if begin.min() < 0 or (begin + length).max() > self.size:
            raise ValueError("`starts` and `sizes` must be ranges in the object, got others.")
        group = merge_ranges(begin, length)
        firsts = np.flatnonzero(np.diff(group, prepend=-1))
        stops = [*(firsts[1:] - 1), len(begin) - 1]
        parts = self._fetch(begin[firsts].tolist(), (begin + length)[stops].tolist())
        views, bases = [memoryview(part) for part in parts], begin[firsts]
        return [
            views[g][at - base : at - base + size]
            for g, at, base, size in zip(
                group.tolist(), begin.tolist(), bases[group].tolist(), length.tolist(), strict=True
            )
        ]

    def read_ahead(self, starts: Sequence[int] | Offsets, sizes: Sequence[int] | Offsets) -> None:
        """Fetch ranges, in ascending order, that the next reads ask for one by one; earlier ones are forgotten."""
        parts = self.read_ranges(starts, sizes)
        self._ahead = [int(start) for start in starts], [bytes(part) for part in parts]

    def _fetch(self, starts: list[int], stops: list[int]) -> list[bytes]:
        sizes = [stop - start for start, stop in zip(starts, stops, strict=True)]
        more = {"batch_size": BATCH} if self._store.async_impl else {}
        with store_errors(self.path.name):
            parts = self._store.cat_ranges([self._key] * len(starts), starts, stops, on_error="raise", **more)
            if [len(part) for part in parts] != sizes:  # replaced by a shorter object since it was opened
                raise StoreError(f"`path` must be an object that does not change, got another {self.path.name!r}.")
        self.num_requests += len(starts)
        self.bytes_read += sum(sizes)
        return parts


def merge_ranges(starts: Offsets, sizes: Offsets) -> Offsets:
    """Return the group (n,) of each of n ascending ranges; the ranges of a group are fetched together.

    Gaps are closed from the smallest on, as long as all of them together are at most twice the wanted bytes, or
    256 KiB: a request costs the time of some 100 KiB, and reads of a few rows stay a few per cent of a large file.

    Example:
        >>> merge_ranges(np.array([0, 10, 9_000_000]), np.array([10, 5, 10])).tolist()
        [0, 0, 1]
    """
    gaps = starts[1:] - (starts + sizes)[:-1]
    budget = max(FREE, WASTE * int(sizes.sum()))
    order = np.argsort(gaps, kind="stable")
    allowed = np.cumsum(np.maximum(gaps[order], 0)) <= budget
    is_closed = np.zeros(len(gaps), bool)
    is_closed[order[allowed]] = True
    return np.concatenate([[0], np.cumsum(~is_closed)]).astype(np.int64)
