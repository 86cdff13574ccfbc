"""Rows of arrays on disk: where their bytes stand in the file, only the wanted ones are read."""

from __future__ import annotations

import math
import os
import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "ArrayRows",
    "BagFileError",
    "BlockRows",
    "HDF5Rows",
    "Index",
    "RawRows",
    "Rows",
    "check_claim",
    "is_numeric",
    "named_errors",
]

EXPANSION = 1100  # deflate makes data at most 1032 times smaller
SMALL = 1 << 26  # what a header may claim beyond that: constant arrays compress better under other codecs
UNFINISHED = "`path` must be a file whose rows are all written, got one that was left unfinished"
BLOCK = 4096  # rows that are decompressed at a time for the few among them that are wanted

Index = NDArray[np.int64]


class BagFileError(ValueError):
    """A file that holds no bag: damaged, of an unknown layout, or against its own format."""


@contextmanager
def named_errors(name: str) -> Iterator[None]:
    """Whatever goes wrong in reading a file ends as one error that names it, without its folder."""
    try:
        yield
    except FileNotFoundError as error:  # between two looks at it
        raise FileNotFoundError(f"`path` must be a bag file that exists, got {name!r}.") from error
    except ImportError:
        raise
    except BagFileError as error:
        raise BagFileError(f"{error} in {name!r}.") from error.__cause__
    except Exception as error:
        raise BagFileError(f"`path` must be {_rule(error)} bag file, got {name!r}.") from error


def _rule(error: Exception) -> str:
    if isinstance(error, BlockingIOError):
        return "closed by its writer to be an unlocked"
    if isinstance(error, PermissionError):
        return "a readable"
    if isinstance(error, MemoryError):
        return "small enough for the memory to be a readable"
    if isinstance(error, pickle.UnpicklingError):
        return "free of everything but tensors and arrays of numbers (nothing else is unpickled) to be a readable"
    return "an undamaged"


class Rows(Protocol):
    """An array on disk with an instance on its first axis."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    def read(self, rows: Index) -> Tensor:
        """Read ``rows`` (n,), ascending, to a tensor (n, ...)."""


def is_numeric(dtype: Any) -> bool:
    """Whether NumPy's ``dtype`` is one that PyTorch has: no objects, strings, records or extended floats."""
    return isinstance(dtype, np.dtype) and dtype.kind in "biuf" and dtype.itemsize <= 8


def check_claim(claimed: int, stored: int) -> None:
    """Raise :py:class:`BagFileError` where a header claims more bytes than what is stored could unpack to."""
    if claimed > SMALL + EXPANSION * stored:
        raise BagFileError(f"`path` must hold what its header claims, got {claimed} bytes from {stored}")


class RawRows:
    """Rows that stand in a file as they are, in one piece or in several: read by position, nothing is mapped.

    A mapped file ends the process when another one cuts it short, and reads 128 KiB for every row that is wanted.

    Args:
        file: descriptor of the open file.
        shape: (N, ...).
        dtype: of the numbers in the file; NumPy has no bfloat16, so that is PyTorch's.
        starts: where each piece begins.
        piece: how many rows a piece has; only the last may have fewer.
    """

    def __init__(
        self, file: int, shape: Sequence[int], dtype: Any, starts: Sequence[int] | Index, piece: int | None = None
    ) -> None:
        self.file, self.shape = file, tuple(map(int, shape))
        self.stored = np.dtype(np.int16) if dtype is torch.bfloat16 else np.dtype(dtype)
        self.dtype = dtype if isinstance(dtype, torch.dtype) else _torch_dtype(self.stored)
        self.starts = np.asarray(starts, np.int64)
        self.piece = piece
        size = os.fstat(file).st_size
        if min(self.shape, default=0) < 0 or math.prod(self.shape) * self.stored.itemsize > size:
            raise BagFileError(f"`path` must hold the {self.shape} values of its header, got {size} bytes")

    def read(self, rows: Index) -> Tensor:
        """See :py:class:`Rows`."""
        out = np.empty((len(rows), *self.shape[1:]), self.stored)
        if out.size and len(self.starts) == 1 and rows[-1] - rows[0] + 1 == len(rows):
            self._fill(_bytes(out), int(self.starts[0]) + int(rows[0]) * (out.nbytes // len(rows)))
        elif out.size:
            width, piece = out.nbytes // len(rows), self.piece or self.shape[0]
            address = self.starts[rows // piece] + rows % piece * width
            breaks = np.flatnonzero(np.diff(address) != width) + 1
            bounds = [0, *breaks.tolist(), len(rows)]
            target = _bytes(out)
            for first, last, start in zip(bounds, bounds[1:], address[bounds[:-1]].tolist(), strict=False):
                self._fill(target[first * width : last * width], start)
        tensor = torch.from_numpy(out if self.stored.isnative else out.astype(self.stored.newbyteorder("=")))
        return tensor.view(torch.bfloat16) if self.dtype is torch.bfloat16 else tensor

    def _fill(self, target: memoryview, start: int) -> None:
        while target:
            got = os.preadv(self.file, [target], start) if start >= 0 else 0
            if not got:
                raise BagFileError("`path` must be a whole file, got one that ends too early")
            target, start = target[got:], start + got


class ArrayRows:
    """Rows of what is in memory, or has to be read whole.

    Args:
        load: gives the array (N, ...).
        shape: (N, ...).
        dtype: of the array.
        warning: said before a part of it is read; empty says nothing.
    """

    def __init__(self, load: Callable[[], Any], shape: Sequence[int], dtype: Any, warning: str = "") -> None:
        self.load, self.shape, self.warning = load, tuple(map(int, shape)), warning
        self.dtype = dtype if isinstance(dtype, torch.dtype) else _torch_dtype(dtype)

    def read(self, rows: Index) -> Tensor:
        """See :py:class:`Rows`."""
        if self.warning and len(rows) < self.shape[0]:
            warnings.warn(self.warning, stacklevel=2)
        values = self.load()
        tensor = values if isinstance(values, Tensor) else _tensor(np.asarray(values))
        tensor = tensor.reshape(self.shape).contiguous()
        return tensor.clone() if len(rows) == self.shape[0] else tensor[torch.from_numpy(rows)]


class BlockRows:
    """Rows of an array that is stored in compressed chunks: of each chunk with a wanted row the whole is unpacked.

    Args:
        array: of h5py or zarr.
        leading: whether the array is (1, N, ...).
    """

    def __init__(self, array: Any, leading: bool = False) -> None:
        self.array, self.leading = array, leading
        self.shape: tuple[int, ...] = tuple(map(int, array.shape[leading:]))
        self.dtype = _torch_dtype(array.dtype)
        chunks = getattr(array, "shards", None) or array.chunks
        self.chunk = int(chunks[leading]) if chunks else BLOCK

    def read(self, rows: Index) -> Tensor:
        """See :py:class:`Rows`."""
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
    """Rows of a chunked HDF5 dataset: from their place in the file, unless its chunks are filtered or parts of rows."""

    def __init__(self, dataset: Any, leading: bool = False) -> None:
        super().__init__(dataset, leading)
        whole = not leading and dataset.chunks is not None and dataset.chunks[1:] == dataset.shape[1:]
        self.plain = whole and not dataset.id.get_create_plist().get_nfilters()

    def read(self, rows: Index) -> Tensor:
        """See :py:class:`Rows`."""
        if self.plain:
            return self._raw().read(rows)
        if self.array.chunks and self.array.id.get_num_chunks() < math.prod(
            map(_ceil, self.array.shape, self.array.chunks)
        ):
            raise BagFileError(UNFINISHED)
        return super().read(rows)

    def _raw(self) -> RawRows:
        starts = np.full(_ceil(self.shape[0], self.chunk), -1, np.int64)

        def note(chunk: Any) -> None:
            starts[chunk.chunk_offset[0] // self.chunk] = chunk.byte_offset

        self.array.id.chunk_iter(note)
        if (starts < 0).any():
            raise BagFileError(UNFINISHED)
        return RawRows(self.array.file.id.get_vfd_handle(), self.shape, self.array.dtype, starts, self.chunk)


def _bytes(values: NDArray[Any]) -> memoryview:
    return values.reshape(-1).view(np.uint8).data


def _ceil(size: int, part: int) -> int:
    return -(-size // part)


@lru_cache
def _torch_dtype(dtype: Any) -> torch.dtype:
    if not is_numeric(dtype):
        raise BagFileError(f"`path` must hold numbers, got {dtype}")
    return torch.from_numpy(np.empty(0, dtype.newbyteorder("="))).dtype


def _tensor(values: NDArray[Any]) -> Tensor:
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    return torch.from_numpy(np.require(native, requirements=["C", "W"]))
