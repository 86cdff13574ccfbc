"""Instances of bags as rows that are read in chunks, from memory or from a file."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

__all__ = ["InstanceRows", "cast"]


class InstanceRows:
    """Instances of a batch of bags as one sequence of rows, read in chunks of any size.

    Args:
        inputs: a batch (B, N, ...), or the rows of a single bag: any object with a length whose slices are tensors or
            arrays (n, ...), such as a memory-mapped array, an HDF5 dataset or a reader of one. Such rows are read
            lazily.

    Raises:
        ValueError: when ``inputs`` is neither, or a slice does not have the requested length.

    Example:
        >>> rows = InstanceRows(np.arange(12.0).reshape(6, 2))
        >>> rows.bags, rows.instances, rows.read(4, 6).tolist()
        (1, 6, [[8.0, 9.0], [10.0, 11.0]])
    """

    def __init__(self, inputs: Any) -> None:
        batch = isinstance(inputs, Tensor)
        if batch and inputs.ndim < 3:
            raise ValueError(f"`inputs` must have shape (B, N, ...), got {tuple(inputs.shape)}.")
        if not batch and not (hasattr(inputs, "__len__") and hasattr(inputs, "__getitem__")):
            raise ValueError(f"`inputs` must be a batch (B, N, ...) or rows of a bag, got {type(inputs).__name__}.")
        self.bags: int = inputs.shape[0] if batch else 1
        self.instances: int = inputs.shape[1] if batch else len(inputs)
        self.batch = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs if batch else None
        self.rows = inputs if self.batch is None else self.batch.flatten(0, 1)

    def __len__(self) -> int:
        """Return the number of instances of all bags, including padding."""
        return self.bags * self.instances

    def read(self, start: int, stop: int) -> Tensor:
        """Return instances ``[start, stop)`` as a tensor (n, ...)."""
        chunk = self.rows[start:stop]
        # a copy, since an array of a file may be read-only and a tensor must be writable
        chunk = chunk if isinstance(chunk, Tensor) else torch.from_numpy(np.array(chunk))
        if chunk.ndim < 2 or len(chunk) != stop - start:
            raise ValueError(f"`inputs` must give rows ({stop - start}, ...) of a bag, got {tuple(chunk.shape)}.")
        return chunk

    def part(self, start: int, stop: int) -> Tensor:
        """Return instances ``[start, stop)`` of each bag as a tensor (B, n, ...)."""
        return self.read(start, stop).unsqueeze(0) if self.batch is None else self.batch[:, start:stop]

    def whole(self, like: Tensor | None, step: int) -> Tensor:
        """Return the batch (B, N, ...) on the device and in the dtype of ``like``; a file is read by ``step`` rows."""
        if self.batch is not None:
            return cast(self.batch, like)
        empty = cast(self.read(0, 0), like)
        bag = empty.new_empty((1, self.instances, *empty.shape[1:]))
        for start in range(0, self.instances, step):
            stop = min(start + step, self.instances)
            bag[0, start:stop] = self.read(start, stop)
        return bag


def cast(x: Tensor, like: Tensor | None) -> Tensor:
    """Move ``x`` to the device of ``like`` and, if it is floating point, convert it to its dtype."""
    if like is None:
        return x
    return x.to(like.device, like.dtype if x.is_floating_point() else x.dtype)
