"""Transforms that check the spacing of slices by their positions."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils.enums import TransformBackends
from torch import Tensor

from monai_mil_ext.utils import BagKeys

__all__ = ["CheckSliceSpacing", "CheckSliceSpacingD", "CheckSliceSpacingDict", "CheckSliceSpacingd"]

ABSOLUTE = 0.01  # mm
MAX_GAPS = 5  # largest number of gaps that a message lists


class CheckSliceSpacing(Transform):
    """Check that the slices of a bag are evenly spaced, and raise an error that lists the gaps.

    For bags with positions but without a scan, for example from feature files; for scans,
    :py:class:`monai_mil_ext.transforms.LoadScan` does this check. Each position is compared with the least-squares line
    through all of them, and each step with the lower median: about twice the median indicates a missing slice. Slices
    that were left out on purpose, by a range, a stride or the foreground, are not reported if ``slice_index`` is given.

    Args:
        tolerance: allowed distance from the line as a fraction of the median step, to which 0.01 mm are added.

    Raises:
        ValueError: if positions are not finite, not ascending or not evenly spaced.

    Example:
        >>> CheckSliceSpacing()(torch.tensor([0.0, 5.0, 15.0, 20.0]))
        Traceback (most recent call last):
        ...
        ValueError: `position` must be evenly spaced, got 10 mm between slices 1 and 2 (5 and 15 mm; 1 missing) where 5
        mm is usual.
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, tolerance: float = 0.1) -> None:
        if not 0 <= tolerance < 0.5:
            raise ValueError(f"`tolerance` must be at least 0 and below 0.5, got {tolerance!r}.")
        self.tolerance = tolerance

    def __call__(self, position: NdarrayOrTensor, slice_index: NdarrayOrTensor | None = None) -> Tensor:
        """Return ``position`` (N,) in mm after the check; ``slice_index`` (N,) holds the slice numbers in the scan."""
        plain = _plain(position)
        height = plain.detach().double().cpu()
        index = torch.arange(len(height)) if slice_index is None else _plain(slice_index).long().cpu()
        if height.ndim != 1 or index.shape != height.shape:
            got = f"{tuple(height.shape)} for {tuple(index.shape)}"
            raise ValueError(f"`position` must have shape (N,), as `slice_index` has, got {got}.")
        if not height.isfinite().all():
            raise ValueError(f"`position` must be finite, got {height[~height.isfinite()][0].item()}.")
        if len(height) > 1:
            self._check(height, index)
        return plain

    def _check(self, height: Tensor, index: Tensor) -> None:
        steps, counts = height.diff(), index.diff()
        wrong = (steps <= 0) | (counts <= 0)
        if wrong.any():
            k = int(wrong.nonzero()[0])
            raise ValueError(f"`position` must ascend with the slices, got {_between(height, index, k)}.")
        spacing = steps / counts
        usual = spacing.sort().values[(len(spacing) - 1) // 2].item()
        line = np.polyval(np.polyfit(index.numpy(), height.numpy(), 1), index.numpy())
        off = float(abs(height.numpy() - line).max())
        if off <= self.tolerance * usual + ABSOLUTE:
            return
        odd = ((spacing - usual).abs() > 2 * self.tolerance * usual + ABSOLUTE).nonzero().flatten().tolist()
        gaps = [_gap(height, index, k, usual) for k in odd[:MAX_GAPS]] or [f"slices up to {off:g} mm off"]
        more = f" and {len(odd) - MAX_GAPS} more gaps" if len(odd) > MAX_GAPS else ""
        raise ValueError(f"`position` must be evenly spaced, got {', '.join(gaps)}{more} where {usual:g} mm is usual.")


class CheckSliceSpacingd(MapTransform):
    """Dictionary form of :py:class:`CheckSliceSpacing`, which uses the item ``slice_index`` if it exists.

    Args:
        keys: positions (N,) of a bag.
        tolerance: see :py:class:`CheckSliceSpacing`.
        allow_missing_keys: whether to skip missing keys.
    """

    backend = CheckSliceSpacing.backend

    def __init__(
        self, keys: KeysCollection = BagKeys.POSITION, tolerance: float = 0.1, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.check = CheckSliceSpacing(tolerance)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check the positions of each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.check(d[key], d.get(BagKeys.SLICE_INDEX))
        return d


def _gap(height: Tensor, index: Tensor, k: int, usual: float) -> str:
    step = (height[k + 1] - height[k]).item()
    missing = round(step / usual) - int(index[k + 1] - index[k])
    below, above = height[k].item(), height[k + 1].item()
    kind = f"; {missing} missing" if missing > 0 else ""
    return f"{step:g} mm between slices {int(index[k])} and {int(index[k + 1])} ({below:g} and {above:g} mm{kind})"


def _between(height: Tensor, index: Tensor, k: int) -> str:
    first, second = (f"slice {int(index[i])} at {height[i].item():g} mm" for i in (k, k + 1))
    return f"{first} before {second}"


def _plain(values: NdarrayOrTensor) -> Tensor:
    return values.as_tensor() if isinstance(values, MetaTensor) else torch.as_tensor(values)


CheckSliceSpacingD = CheckSliceSpacingDict = CheckSliceSpacingd
