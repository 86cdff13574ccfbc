"""Row access to arrays on disk, which reads only the requested rows wherever the format allows it."""

from __future__ import annotations

import math
import os
import pickle
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_mil_ext.utils import optional_dependency
from monai_mil_ext.utils.archives import ArchiveError
from monai_mil_ext.utils.remote import RangeFile, StoreError, local_copy

__all__ = [
    "ArrayRows",
    "BagFileError",
    "BlockRows",
    "HDF5Rows",
    "Index",
    "Member",
    "MemberRows",
    "RawRows",
    "Rows",
    "Unreadable",
    "check_array_count",
    "check_header_size",
    "errors_for_file",
    "is_numeric",
]

MAX_EXPANSION = 1100  # deflate compresses data at most 1032-fold
SLACK = 1 << 26  # bytes that a header may declare beyond that: other codecs compress constant arrays better
UNFINISHED = "`path` must be a completely written file, got one with missing rows"
MAX_ARRAYS = 1000
PIECE = 1 << 20  # bytes that are read at a time for a checksum
MAX_CHUNKS = 10_000  # of an array in an object store; nodes of its index are fetched one after the other
FEW_CHUNKS = 64  # that are looked up one by one, without the rest of the index
BLOCK = 4096  # most rows that are decompressed at a time to read a few of them

h5py = optional_dependency("", "h5py")

Index = NDArray[np.int64]


class BagFileError(ValueError):
    """Error of a file that holds no bag: damaged, of an unknown layout, or in conflict with its own format."""


@contextmanager
def errors_for_file(name: str) -> Iterator[None]:
    """Convert every error of reading a file to one that names the file, without its folder."""
    try:
        yield
    except FileNotFoundError as error:  # removed since it was checked
        raise FileNotFoundError(f"`path` must be a bag file that exists, got {name!r}.") from error
    except ImportError:
        raise
    except StoreError as error:
        raise BagFileError(str(error)) from None
    except (BagFileError, ArchiveError) as error:
        raise BagFileError(f"{error} in {name!r}.") from error.__cause__
    except Exception as error:
        raise BagFileError(f"`path` must be {_rule(error)}, got {name!r}.") from error


def _rule(error: Exception) -> str:
    if isinstance(error, BlockingIOError):
        return "a bag file that no writer has open"
    if isinstance(error, PermissionError):
        return "a readable bag file"
    if isinstance(error, MemoryError):
        return "a bag file that fits into memory"
    if isinstance(error, pickle.UnpicklingError):
        return "a bag file of tensors and numeric arrays only (nothing else is unpickled)"
    return "an undamaged bag file"


class Rows(Protocol):
    """Array on disk whose first axis is that of the instances."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    def read(self, rows: Index) -> Tensor:
        """Read ``rows`` (n,), ascending indices, into a tensor (n, ...)."""


class Unreadable(NamedTuple):
    """Array that is passed over, unless it holds the features: of complex numbers or text, sparse, ...

    Its shape is empty if it could not be mistaken for the features whatever its name, such as an array of text.
    """

    kind: str
    shape: tuple[int, ...] = ()


def is_numeric(dtype: Any) -> bool:
    """Return whether PyTorch has NumPy's ``dtype``: no objects, strings, records or extended floats."""
    return isinstance(dtype, np.dtype) and dtype.kind in "biuf" and dtype.itemsize <= 8


def check_header_size(declared: int, stored: int) -> None:
    """Raise :py:class:`BagFileError` if a header declares more bytes than the stored ones can decompress to."""
    if declared > SLACK + MAX_EXPANSION * stored:
        raise BagFileError(
            f"`path` must hold the bytes that its header declares, got {declared} declared and {stored} stored"
        )


def check_array_count(count: int) -> None:
    """Raise :py:class:`BagFileError` if a file has so many arrays that a look at their headers takes seconds."""
    if count > MAX_ARRAYS:
        raise BagFileError(f"`path` must hold at most {MAX_ARRAYS} arrays, got {count} or more")


class RawRows:
    """Uncompressed rows in one or several contiguous pieces of a file, read by position.

    The file is not memory-mapped: a mapped file kills the process when another one truncates it, and reads 128 KiB for
    every requested row.

    Args:
        file: descriptor of the open file, or the object of a store.
        shape: (N, ...).
        dtype: dtype in the file; PyTorch's for bfloat16, which NumPy lacks.
        starts: offset of each piece in bytes.
        piece: number of rows of a piece; only the last one may have fewer.
    """

    def __init__(
        self,
        file: int | RangeFile,
        shape: Sequence[int],
        dtype: Any,
        starts: Sequence[int] | Index,
        piece: int | None = None,
    ) -> None:
        self.file, self.shape = file, tuple(map(int, shape))
        self.stored = np.dtype(np.int16) if dtype is torch.bfloat16 else np.dtype(dtype)
        self.dtype = dtype if isinstance(dtype, torch.dtype) else _torch_dtype(self.stored)
        self.starts = np.asarray(starts, np.int64)
        self.piece = piece
        size = file.size if isinstance(file, RangeFile) else os.fstat(file).st_size
        if min(self.shape, default=0) < 0 or math.prod(self.shape) * self.stored.itemsize > size:
            raise BagFileError(f"`path` must hold the {self.shape} values of its header, got {size} bytes")

    def read(self, rows: Index) -> Tensor:
        """Read ``rows``; see :py:class:`Rows`."""
        out = np.empty((len(rows), *self.shape[1:]), self.stored)
        if out.size and len(self.starts) == 1 and rows[-1] - rows[0] + 1 == len(rows):
            self._fill_parts(_bytes(out), [0], [int(self.starts[0]) + int(rows[0]) * (out.nbytes // len(rows))])
        elif out.size:
            width, piece = out.nbytes // len(rows), self.piece or self.shape[0]
            address = self.starts[rows // piece] + rows % piece * width
            firsts = np.flatnonzero(np.diff(address, prepend=address[0] - width - 1) != width)
            self._fill_parts(_bytes(out), (firsts * width).tolist(), address[firsts].tolist())
        if len(rows) == self.shape[0]:
            self._check(_bytes(out))
        tensor = torch.from_numpy(out if self.stored.isnative else out.astype(self.stored.newbyteorder("=")))
        return tensor.view(torch.bfloat16) if self.dtype is torch.bfloat16 else tensor

    def _check(self, values: memoryview) -> None:
        """Check the bytes of the whole array, as far as the file allows it."""

    def _fill_parts(self, target: memoryview, firsts: list[int], starts: list[int]) -> None:
        """Fill the parts of a buffer that begin at ``firsts`` with the bytes of the file from ``starts`` on."""
        lasts = [*firsts[1:], len(target)]
        if isinstance(self.file, RangeFile):
            order = np.argsort(starts, kind="stable")  # chunks may lie in any order
            parts = self.file.read_ranges(np.asarray(starts)[order], np.subtract(lasts, firsts)[order])
            for i, part in zip(order.tolist(), parts, strict=True):
                target[firsts[i] : lasts[i]] = part
            return
        with _sparse_reads(self.file, starts, np.subtract(lasts, firsts).tolist()):
            for first, last, start in zip(firsts, lasts, starts, strict=True):
                self._fill(self.file, target[first:last], start)

    def _fill(self, file: int, target: memoryview, start: int) -> None:
        while target:
            count = os.preadv(file, [target], start) if start >= 0 else 0
            if not count:
                raise BagFileError("`path` must be a complete file, got a truncated one")
            target, start = target[count:], start + count


class Member(NamedTuple):
    """Bytes of an uncompressed member of an archive, and their checksum, if there is one."""

    start: int
    size: int
    crc: int | None


class MemberRows(RawRows):
    """Rows in an uncompressed member of an archive, whose checksum is compared when all rows are read.

    Args:
        file: descriptor of the open file.
        shape: (N, ...).
        dtype: see :py:class:`RawRows`.
        start: offset of the first row in the file.
        member: the member, which may hold other bytes before and after the rows.
    """

    def __init__(self, file: int, shape: Sequence[int], dtype: Any, start: int, member: Member) -> None:
        super().__init__(file, shape, dtype, [start])
        self.member, self.descriptor = member, file
        self.first, self.last = start, start + math.prod(self.shape) * self.stored.itemsize
        if not member.start <= self.first <= self.last <= member.start + member.size:
            raise BagFileError(f"`path` must hold the {self.shape} values of its header, got {member.size} bytes")

    def _check(self, values: memoryview) -> None:
        start, size, expected = self.member
        if expected is not None:
            crc = zlib.crc32(values, self._crc(start, self.first, 0))
            if self._crc(self.last, start + size, crc) != expected:
                raise BagFileError("`path` must match its checksum, got other bytes")

    def _crc(self, first: int, last: int, crc: int) -> int:
        for start in range(first, last, PIECE):
            crc = zlib.crc32(os.pread(self.descriptor, min(PIECE, last - start), start), crc)
        return crc


class ArrayRows:
    """Rows of an array that is in memory or has to be read whole.

    Args:
        load: function that returns the array (N, ...).
        shape: (N, ...).
        dtype: dtype of the array.
        warning: message of the warning when only some rows are read; empty for none.
    """

    def __init__(self, load: Callable[[], Any], shape: Sequence[int], dtype: Any, warning: str = "") -> None:
        self.load, self.shape, self.warning = load, tuple(map(int, shape)), warning
        self.dtype = dtype if isinstance(dtype, torch.dtype) else _torch_dtype(dtype)

    def read(self, rows: Index) -> Tensor:
        """Read ``rows``; see :py:class:`Rows`."""
        if self.warning and len(rows) < self.shape[0]:
            warnings.warn(self.warning, stacklevel=2)
        values = self.load()
        tensor = values if isinstance(values, Tensor) else _tensor(np.asarray(values))
        tensor = tensor.reshape(self.shape).contiguous()
        return tensor.clone() if len(rows) == self.shape[0] else tensor[torch.from_numpy(rows)]


class BlockRows:
    """Rows of an array in compressed chunks; each chunk with a requested row is decompressed whole.

    Args:
        array: array of h5py or zarr.
        leading: whether the array has shape (1, N, ...).
    """

    def __init__(self, array: Any, leading: bool = False) -> None:
        self.array, self.leading = array, leading
        self.shape: tuple[int, ...] = tuple(map(int, array.shape[leading:]))
        self.dtype = _torch_dtype(array.dtype)
        chunks = getattr(array, "shards", None) or array.chunks
        self.chunk = int(chunks[leading]) if chunks else BLOCK

    def read(self, rows: Index) -> Tensor:
        """Read ``rows``; see :py:class:`Rows`."""
        if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
            return _tensor(self._span(int(rows[0]), int(rows[-1]) + 1))
        out = np.empty((len(rows), *self.shape[1:]), self.array.dtype)
        chunks = rows // self.chunk
        breaks = np.flatnonzero((np.diff(chunks) > 1) | (np.diff(rows // max(BLOCK, self.chunk)) > 0)) + 1
        for part in np.split(np.arange(len(rows)), breaks):
            if len(part):
                wanted = rows[part]
                out[part] = self._span(int(wanted[0]), int(wanted[-1]) + 1)[wanted - wanted[0]]
        return _tensor(out)

    def _span(self, first: int, last: int) -> NDArray[Any]:
        return np.asarray(self.array[0, first:last] if self.leading else self.array[first:last])


class HDF5Rows(BlockRows):
    """Rows of a chunked HDF5 dataset, read by position unless its chunks are filtered or split rows.

    Args:
        dataset: dataset of h5py.
        leading: whether the array has shape (1, N, ...).
        source: object of a store that the dataset lies in. Its chunks are fetched together; where their index would
            take longer (of more than 10,000 chunks, or 64 if all rows are wanted), the whole file is copied.
    """

    def __init__(self, dataset: Any, leading: bool = False, source: RangeFile | None = None) -> None:
        super().__init__(dataset, leading)
        self.source = source
        self.whole_rows = not leading and dataset.chunks is not None and dataset.chunks[1:] == dataset.shape[1:]
        self.is_raw = self.whole_rows and not dataset.id.get_create_plist().get_nfilters()
        self.num_chunks = math.prod(map(_ceil_divide, dataset.shape, dataset.chunks)) if dataset.chunks else 0

    def read(self, rows: Index) -> Tensor:
        """Read ``rows``; see :py:class:`Rows`."""
        if self.source is not None and self.num_chunks > (FEW_CHUNKS if len(rows) == self.shape[0] else MAX_CHUNKS):
            with local_copy(self.source.path) as copy, h5py.File(copy, "r") as file:
                return HDF5Rows(file[self.array.name], self.leading).read(rows)
        if self.is_raw:
            return self._raw_rows(rows).read(rows)
        if self.source is not None and self.array.chunks:
            places = self._places(rows)
            self.source.read_ahead([start for start, _, _ in places], [size for _, size, _ in places])
        elif self.array.chunks and self.array.id.get_num_chunks() < self.num_chunks:
            raise BagFileError(UNFINISHED)
        return super().read(rows)

    def _raw_rows(self, rows: Index) -> RawRows:
        starts = np.full(_ceil_divide(self.shape[0], self.chunk), -1, np.int64)
        if self.source is not None:
            for start, _, first in self._places(rows):
                starts[first // self.chunk] = start
            return RawRows(self.source, self.shape, self.array.dtype, starts, self.chunk)

        def add_start(chunk: Any) -> None:
            starts[chunk.chunk_offset[0] // self.chunk] = chunk.byte_offset

        self.array.id.chunk_iter(add_start)
        if (starts < 0).any():
            raise BagFileError(UNFINISHED)
        return RawRows(self.array.file.id.get_vfd_handle(), self.shape, self.array.dtype, starts, self.chunk)

    def _places(self, rows: Index) -> list[tuple[int, int, int]]:
        """Return the offset in the file, the size and the first row of each chunk with ``rows``, sorted."""
        wanted = set((rows // self.chunk).tolist())
        chunks: list[Any] = []
        if self.whole_rows and len(wanted) <= FEW_CHUNKS:
            rest = (0,) * (self.array.ndim - 1)
            chunks = [self.array.id.get_chunk_info_by_coord((i * self.chunk, *rest)) for i in sorted(wanted)]
        else:
            self.array.id.chunk_iter(chunks.append)
        written = [chunk for chunk in chunks if chunk.byte_offset is not None]
        found = [(chunk.byte_offset, chunk.size, int(chunk.chunk_offset[self.leading])) for chunk in written]
        places = sorted(place for place in found if place[2] // self.chunk in wanted)
        if len(places) < len(wanted) * (self.num_chunks // _ceil_divide(self.shape[0], self.chunk)):
            raise BagFileError(UNFINISHED)
        return places


@contextmanager
def _sparse_reads(file: int, starts: Sequence[int], sizes: Sequence[int]) -> Iterator[None]:
    """Announce several parts of a file to the system, which then reads them at once and no more than them.

    Otherwise it reads 128 KiB ahead of each part, and of a bag in random rows the whole file.
    """
    advise = getattr(os, "posix_fadvise", None) if len(starts) > 1 else None
    if advise is None:
        yield
        return
    advise(file, 0, 0, os.POSIX_FADV_RANDOM)
    try:
        for start, size in zip(starts, sizes, strict=True):
            if start >= 0:
                advise(file, start, size, os.POSIX_FADV_WILLNEED)
        yield
    finally:
        advise(file, 0, 0, os.POSIX_FADV_NORMAL)


def _bytes(values: NDArray[Any]) -> memoryview:
    return values.reshape(-1).view(np.uint8).data


def _ceil_divide(size: int, part: int) -> int:
    return -(-size // part)


@lru_cache
def _torch_dtype(dtype: Any) -> torch.dtype:
    if not is_numeric(dtype):
        raise BagFileError(f"`path` must hold numbers, got {dtype}")
    return torch.from_numpy(np.empty(0, dtype.newbyteorder("="))).dtype


def _tensor(values: NDArray[Any]) -> Tensor:
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    return torch.from_numpy(np.require(native, requirements=["C", "W"]))
