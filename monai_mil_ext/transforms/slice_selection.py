"""Which slices of a scan become the instances of its bag."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from monai_mil_ext.utils import check_positive

__all__ = ["SliceSelection"]

TOLERANCE = 1e-3  # mm


@dataclass(frozen=True)
class SliceSelection:
    """Which slices of a scan become instances, and how many of their neighbours each brings along.

    First the range is cut out, then every ``stride``-th of its slices is taken, the lowest first, then those without
    foreground are left out. The range is in mm from the ends of the stack. That means the same whatever the slice
    thickness, which a number of slices doesn't; a fraction of the stack would be another part of the body wherever the
    coverage is another one, and a position in the scanner's own mm depends on where the table stood.

    Args:
        start_mm: where the range begins: mm above the lowest slice, or, if negative, from the highest slice down; None
            is the lowest slice. -160 begins 160 mm below the vertex of a head.
        stop_mm: where it ends, by the same count; slices at either end belong to it. None is the highest slice.
        stride: 1 takes every slice, 2 every other one, ...
        neighbours: how many slices below and above each instance become channels of it. They are the scan's own, also
            where the range or the stride has left them out; beyond the ends, the first and last slice are repeated.
        foreground: leaves out slices without foreground: a threshold that it must exceed, or MONAI's ``select_fn``,
            which maps voxels to True. None keeps every slice.
        min_foreground: the share of a slice's pixels, 0 to 1, that foreground must exceed. If no slice has as much, the
            one that has the most is kept.

    Raises:
        ValueError: when an option is not allowed, or when the range holds no slice of a scan.

    Example:
        >>> position = torch.arange(20) * 5.0
        >>> SliceSelection(start_mm=20, stop_mm=-30, stride=4).choose(torch.zeros(1, 20, 2, 2), position).tolist()
        [4, 8, 12]
    """

    start_mm: float | None = None
    stop_mm: float | None = None
    stride: int = 1
    neighbours: int = 0
    foreground: float | Callable[[Tensor], Tensor] | None = None
    min_foreground: float = 0.0

    def __post_init__(self) -> None:
        check_positive(stride=self.stride)
        if isinstance(self.neighbours, bool) or not isinstance(self.neighbours, int) or self.neighbours < 0:
            raise ValueError(f"`neighbours` must be 0 or a positive integer, got {self.neighbours!r}.")
        for name in ("start_mm", "stop_mm", "foreground"):
            value = getattr(self, name)
            if not (value is None or callable(value) or math.isfinite(value)):
                raise ValueError(f"`{name}` must be finite, got {value!r}.")
        if not 0 <= self.min_foreground < 1:
            raise ValueError(f"`min_foreground` must be at least 0 and below 1, got {self.min_foreground!r}.")

    def choose(self, stack: Tensor, position: Tensor) -> Tensor:
        """Indices (n,), ascending, of the chosen ones of the slices ``stack`` (C, N, h, w) at ``position`` (N,) mm."""
        index = self._in_range(position)[:: self.stride]
        if self.foreground is None:
            return index
        share = _foreground(self.foreground, stack[:, index]).any(dim=0).flatten(1).float().mean(dim=1).cpu()
        enough = share > self.min_foreground
        return index[enough] if enough.any() else index[share.argmax()].unsqueeze(0)

    def around(self, index: Tensor, num_slices: int) -> Tensor:
        """Indices (n, 2 * neighbours + 1) of the slices at ``index`` (n,) and beside them, from below upwards."""
        offsets = torch.arange(-self.neighbours, self.neighbours + 1)
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
