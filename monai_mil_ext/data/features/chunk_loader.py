"""Loader of consecutive chunks of a bag, prefetched by worker processes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from monai_mil_ext.utils import check_count, check_positive

__all__ = ["ChunkLoader"]

PREFETCH = 2  # chunks that each worker may read ahead


class ChunkLoader:
    """Loader of the chunks (n, ...) of a bag, in order; workers read ahead.

    A ``DataLoader`` allocates new shared memory for every chunk, which takes longer than copying the data: a sixth of
    the time of reading a tile. Here workers reuse a few buffers. A chunk that a worker has read is therefore valid only
    **until the next one is requested**; clone a chunk to keep it.

    Args:
        bag: bag whose slices are tensors, such as :py:class:`SlideTiles`.
        chunk_size: number of instances of a chunk; the last one may be smaller.
        num_workers: number of worker processes; 0 reads in the main process.
        pin_memory: whether to copy chunks to pinned memory, for asynchronous transfers to a GPU.

    Raises:
        ValueError: when a number is out of range. Errors of reading are raised unchanged, without worker tracebacks.

    Example:
        >>> [chunk.tolist() for chunk in ChunkLoader(torch.arange(5), chunk_size=2)]
        [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self, bag: Dataset[Tensor] | Tensor, chunk_size: int = 32, num_workers: int = 0, pin_memory: bool = False
    ) -> None:
        check_positive(chunk_size=chunk_size)
        check_count(num_workers=num_workers)
        self.bag = bag
        self.chunk_size = chunk_size
        self.num_workers = num_workers
        self.pin_memory = pin_memory

    def __len__(self) -> int:
        return math.ceil(len(self.bag) / self.chunk_size)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Tensor]:
        chunks = self._prefetched() if self.num_workers and len(self) else map(self.bag.__getitem__, self._slices())
        for chunk in chunks:
            yield chunk.pin_memory() if self.pin_memory else chunk

    def _slices(self) -> list[slice]:
        return [slice(k * self.chunk_size, (k + 1) * self.chunk_size) for k in range(len(self))]

    def _prefetched(self) -> Iterator[Tensor]:
        first = self.bag[:1]
        # chunks read ahead, the chunk in use, and one to spare
        shape = (self.num_workers * PREFETCH + 2, self.chunk_size, *first.shape[1:])
        buffers = torch.empty(shape, dtype=first.dtype).share_memory_()
        loader = DataLoader(
            _BufferFiller(self.bag, buffers),
            batch_size=None,
            sampler=list(enumerate(self._slices())),
            num_workers=self.num_workers,
            prefetch_factor=PREFETCH,
        )
        for number, result in enumerate(loader):
            if isinstance(result, Exception):
                raise result
            yield result if isinstance(result, Tensor) else buffers[number % len(buffers), :result]


class _BufferFiller(Dataset[Any]):
    """Dataset of a worker that fills a shared buffer and returns the number of rows.

    A chunk that does not fit the buffer is returned itself. Errors are returned too, since an error that a worker
    raises has the worker's traceback, with paths, in its message.
    """

    def __init__(self, bag: Dataset[Tensor] | Tensor, buffers: Tensor) -> None:
        self.bag = bag
        self.buffers = buffers

    def __getitem__(self, task: tuple[int, slice]) -> int | Tensor | Exception:
        number, rows = task
        buffer = self.buffers[number % len(self.buffers)]
        try:
            chunk = self.bag[rows]
        except (OSError, ValueError) as error:
            return error
        if chunk.shape[1:] != buffer.shape[1:] or chunk.dtype != buffer.dtype:
            return chunk
        buffer[: len(chunk)] = chunk
        return len(chunk)
