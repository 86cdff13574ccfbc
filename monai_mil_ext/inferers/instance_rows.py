"""The instances of bags as rows that are read a chunk at a time, from memory or from a file."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

__all__ = ["InstanceRows", "cast"]


class InstanceRows:
    """Gives the instances of a batch of bags, one behind the other, in pieces of any size.

    Args:
        inputs: a batch (B, N, ...), or one bag as its rows: anything that has a length and whose slices are tensors or
            arrays (n, ...), as a memory-mapped array, an HDF5 dataset or a reader of one. Of these nothing is read
            before it is asked for.

    Raises:
        ValueError: when ``inputs`` is neither, or a slice has another length than asked for.

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
        """How many instances all bags have, padding included."""
        return self.bags * self.instances

    def read(self, start: int, stop: int) -> Tensor:
        """Instances ``[start, stop)``, (n, ...)."""
        piece = self.rows[start:stop]
        # an array of a file may be read-only, which no tensor is
        piece = piece if isinstance(piece, Tensor) else torch.from_numpy(np.array(piece))
        if piece.ndim < 2 or len(piece) != stop - start:
            raise ValueError(f"`inputs` must give rows ({stop - start}, ...) of a bag, got {tuple(piece.shape)}.")
        return piece

    def whole(self, like: Tensor | None, step: int) -> Tensor:
        """The batch (B, N, ...), where ``like`` is and of its type; from a file ``step`` rows at a time."""
        if self.batch is not None:
            return cast(self.batch, like)
        none = cast(self.read(0, 0), like)
        bag = none.new_empty((1, self.instances, *none.shape[1:]))
        for start in range(0, self.instances, step):
            stop = min(start + step, self.instances)
            bag[0, start:stop] = self.read(start, stop)
        return bag


def cast(x: Tensor, like: Tensor | None) -> Tensor:
    """``x`` on the device of ``like`` and, if it is floating, of its type."""
    if like is None:
        return x
    return x.to(like.device, like.dtype if x.is_floating_point() else x.dtype)
