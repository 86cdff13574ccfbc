"""Finding gaps in a stack of slices that is known by its positions only."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils.enums import TransformBackends
from torch import Tensor

from monai_mil_ext.utils import BagKeys

__all__ = ["CheckSliceSpacing", "CheckSliceSpacingD", "CheckSliceSpacingDict", "CheckSliceSpacingd"]

SHOWN = 5  # gaps that a message names


class CheckSliceSpacing(Transform):
    """Refuse a bag whose slices are not evenly spaced, and name every gap.

    For bags that come with positions and without a scan, from feature files say; where there is a scan,
    :py:class:`monai_mil_ext.transforms.LoadScan` has done it. Steps are compared with the usual one, their lower
    median. A step of about twice the usual one is a missing slice; what a range, a stride or the foreground has left
    out on purpose is none, where ``slice_index`` says so.

    Args:
        tolerance: what a step may be off: this share of the usual one, plus 0.01 mm.

    Raises:
        ValueError: when positions are not finite, not ascending or not evenly spaced.

    Example:
        >>> CheckSliceSpacing()(torch.tensor([0.0, 5.0, 15.0, 20.0]))
        Traceback (most recent call last):
        ...
        ValueError: `position` must be evenly spaced, got 10 mm between slices 1 and 2 (5 and 15 mm; 1 missing) where 5
        mm is usual.
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, tolerance: float = 0.01) -> None:
        if not 0 <= tolerance < 0.5:
            raise ValueError(f"`tolerance` must be at least 0 and below 0.5, got {tolerance!r}.")
        self.tolerance = tolerance

    def __call__(self, position: NdarrayOrTensor, slice_index: NdarrayOrTensor | None = None) -> Tensor:
        """Give ``position`` (N,) mm back; ``slice_index`` (N,) are the numbers of the slices in their scan."""
        plain = _plain(position)
        place = plain.detach().double().cpu()
        index = torch.arange(len(place)) if slice_index is None else _plain(slice_index).long().cpu()
        if place.ndim != 1 or index.shape != place.shape:
            got = f"{tuple(place.shape)} for {tuple(index.shape)}"
            raise ValueError(f"`position` must have shape (N,), as `slice_index` has, got {got}.")
        if not place.isfinite().all():
            raise ValueError(f"`position` must be finite, got {place[~place.isfinite()][0].item()}.")
        if len(place) > 1:
            self._check(place, index)
        return plain

    def _check(self, place: Tensor, index: Tensor) -> None:
        steps, counts = place.diff(), index.diff()
        wrong = (steps <= 0) | (counts <= 0)
        if wrong.any():
            k = int(wrong.nonzero()[0])
            raise ValueError(f"`position` must ascend with the slices, got {_between(place, index, k)}.")
        each = steps / counts
        usual = each.sort().values[(len(each) - 1) // 2].item()
        odd = ((each - usual).abs() > self.tolerance * usual + 0.01).nonzero().flatten().tolist()
        if odd:
            gaps = [_gap(place, index, k, usual) for k in odd[:SHOWN]]
            more = f" and {len(odd) - SHOWN} more gaps" if len(odd) > SHOWN else ""
            raise ValueError(
                f"`position` must be evenly spaced, got {', '.join(gaps)}{more} where {usual:g} mm is usual."
            )


class CheckSliceSpacingd(MapTransform):
    """Dictionary form of :py:class:`CheckSliceSpacing`; it reads ``slice_index`` where there is one.

    Args:
        keys: positions (N,) of a bag.
        tolerance: see :py:class:`CheckSliceSpacing`.
        allow_missing_keys: whether to pass over a key that is not there.
    """

    backend = CheckSliceSpacing.backend

    def __init__(
        self, keys: KeysCollection = BagKeys.POSITION, tolerance: float = 0.01, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.check = CheckSliceSpacing(tolerance)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check the positions of every key."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.check(d[key], d.get(BagKeys.SLICE_INDEX))
        return d


def _gap(place: Tensor, index: Tensor, k: int, usual: float) -> str:
    step = (place[k + 1] - place[k]).item()
    missing = round(step / usual) - int(index[k + 1] - index[k])
    below, above = place[k].item(), place[k + 1].item()
    kind = f"; {missing} missing" if missing > 0 else ""
    return f"{step:g} mm between slices {int(index[k])} and {int(index[k + 1])} ({below:g} and {above:g} mm{kind})"


def _between(place: Tensor, index: Tensor, k: int) -> str:
    one, other = (f"slice {int(index[i])} at {place[i].item():g} mm" for i in (k, k + 1))
    return f"{one} before {other}"


def _plain(values: NdarrayOrTensor) -> Tensor:
    return values.as_tensor() if isinstance(values, MetaTensor) else torch.as_tensor(values)


CheckSliceSpacingD = CheckSliceSpacingDict = CheckSliceSpacingd
