"""The chunks of a bag one after the other, read by other processes while one of them is used."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from monai_mil_ext.utils import check_count, check_positive

__all__ = ["ChunkLoader"]

PREFETCH = 2  # chunks that each worker may be ahead


class ChunkLoader:
    """All chunks (n, ...) of a bag in order; workers read the next ones while one is used.

    A ``DataLoader`` gives every chunk shared memory of its own, whose pages take longer to come into being than their
    bytes to be copied: a sixth of the time in which a tile is read. Here workers fill the same few buffers again and
    again. So a chunk that workers read holds **until the next one is asked for**; clone what is to be kept.

    Args:
        bag: gives a tensor for every slice of it, as :py:class:`SlideTiles` does.
        chunk_size: instances of a chunk; the last one may be smaller.
        num_workers: processes that read; with 0 chunks are read in turn, by this one.
        pin_memory: whether chunks are copied to pinned memory, from which a GPU takes them in passing.

    Raises:
        ValueError: when a number is none of these; whatever reading raises comes as it is, without paths of workers.

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
        chunks = self._by_workers() if self.num_workers and len(self) else map(self.bag.__getitem__, self._places())
        for chunk in chunks:
            yield chunk.pin_memory() if self.pin_memory else chunk

    def _places(self) -> list[slice]:
        return [slice(k * self.chunk_size, (k + 1) * self.chunk_size) for k in range(len(self))]

    def _by_workers(self) -> Iterator[Tensor]:
        first = self.bag[:1]
        # those that are ahead, the one that is used, and one to spare
        shape = (self.num_workers * PREFETCH + 2, self.chunk_size, *first.shape[1:])
        buffers = torch.empty(shape, dtype=first.dtype).share_memory_()
        loader = DataLoader(
            _Filling(self.bag, buffers),
            batch_size=None,
            sampler=list(enumerate(self._places())),
            num_workers=self.num_workers,
            prefetch_factor=PREFETCH,
        )
        for number, told in enumerate(loader):
            if isinstance(told, Exception):
                raise told
            yield told if isinstance(told, Tensor) else buffers[number % len(buffers), :told]


class _Filling(Dataset[Any]):
    """In a worker: fills a buffer and tells how many rows of it.

    A chunk that does not fit travels by itself. Errors are handed on as they are: a worker's would come with its
    traceback in the text, paths and all.
    """

    def __init__(self, bag: Dataset[Tensor] | Tensor, buffers: Tensor) -> None:
        self.bag = bag
        self.buffers = buffers

    def __getitem__(self, task: tuple[int, slice]) -> int | Tensor | Exception:
        number, place = task
        buffer = self.buffers[number % len(self.buffers)]
        try:
            chunk = self.bag[place]
        except (OSError, ValueError) as error:
            return error
        if chunk.shape[1:] != buffer.shape[1:] or chunk.dtype != buffer.dtype:
            return chunk
        buffer[: len(chunk)] = chunk
        return len(chunk)
