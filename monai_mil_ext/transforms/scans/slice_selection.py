"""Selection of the slices of a scan that become instances."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from monai_mil_ext.utils import check_count, check_positive, check_rate

__all__ = ["SliceSelection"]

TOLERANCE = 1e-3  # mm


@dataclass(frozen=True)
class SliceSelection:
    """Selection of slices by range, stride and foreground, with the number of neighbors that each instance includes.

    The selection first applies the range, then takes every ``stride``-th slice from the lowest upwards, and then
    removes slices without foreground. The range is in mm from the ends of the stack, which is independent of the slice
    thickness (unlike a number of slices), of the coverage (unlike a fraction of the stack) and of the table position
    (unlike scanner coordinates).

    Args:
        start_mm: start of the range in mm above the lowest slice or, if negative, relative to the highest slice; None
            starts at the lowest slice. For example, -160 starts 160 mm below the vertex of a head.
        stop_mm: end of the range, counted in the same way and included; None ends at the highest slice.
        stride: step between selected slices; 1 takes every slice.
        num_neighbors: number of slices below and above each instance that become channels of it. They are taken from
            the whole scan, regardless of range and stride; beyond its ends, the first or last slice is repeated.
        foreground: intensity that foreground must exceed, or a function that maps voxels to True for foreground, like
            MONAI's ``select_fn``. None keeps all slices.
        min_foreground: fraction of the pixels of a slice, in [0, 1), that foreground must exceed. If no slice does, the
            slice with the most foreground is kept.

    Raises:
        ValueError: if an option is not allowed, or the range contains no slice of a scan.

    Example:
        >>> position = torch.arange(20) * 5.0
        >>> SliceSelection(start_mm=20, stop_mm=-30, stride=4).choose(torch.zeros(1, 20, 2, 2), position).tolist()
        [4, 8, 12]
    """

    start_mm: float | None = None
    stop_mm: float | None = None
    stride: int = 1
    num_neighbors: int = 0
    foreground: float | Callable[[Tensor], Tensor] | None = None
    min_foreground: float = 0.0

    def __post_init__(self) -> None:
        check_positive(stride=self.stride)
        check_count(num_neighbors=self.num_neighbors)
        check_rate(min_foreground=self.min_foreground)
        for name in ("start_mm", "stop_mm", "foreground"):
            value = getattr(self, name)
            if not (value is None or callable(value) or math.isfinite(value)):
                raise ValueError(f"`{name}` must be finite, got {value!r}.")

    def choose(self, stack: Tensor, position: Tensor) -> Tensor:
        """Select slices of ``stack`` (C, N, h, w) at ``position`` (N,) mm; return ascending indices (n,)."""
        index = self._in_range(position)[:: self.stride]
        if self.foreground is None:
            return index
        fraction = _foreground(self.foreground, stack[:, index]).any(dim=0).flatten(1).float().mean(dim=1).cpu()
        enough = fraction > self.min_foreground
        return index[enough] if enough.any() else index[fraction.argmax()].unsqueeze(0)

    def around(self, index: Tensor, num_slices: int) -> Tensor:
        """Return indices (n, 2 * num_neighbors + 1) of the slices at ``index`` (n,) and their neighbors."""
        offsets = torch.arange(-self.num_neighbors, self.num_neighbors + 1)
        return (index.unsqueeze(1) + offsets).clamp(0, num_slices - 1)

    def _in_range(self, position: Tensor) -> Tensor:
        height = (position - position[0]).double()
        start, stop = (
            end if mm is None else mm + (height[-1].item() if mm < 0 else 0.0)
            for mm, end in ((self.start_mm, -math.inf), (self.stop_mm, math.inf))
        )
        index = torch.nonzero((height >= start - TOLERANCE) & (height <= stop + TOLERANCE)).flatten()
        if not len(index):
            raise ValueError(
                f"`start_mm` and `stop_mm` must leave a slice of the scan, got {self.start_mm} to {self.stop_mm} "
                f"for {len(position)} slices over {height[-1]:g} mm."
            )
        return index


def _foreground(foreground: float | Callable[[Tensor], Tensor], slices: Tensor) -> Tensor:
    return torch.as_tensor(foreground(slices)).bool() if callable(foreground) else slices > foreground
