"""From scores of slices back to a volume in the scan's own geometry."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import SpaceKeys
from monai.utils.enums import TransformBackends
from torch import Tensor

from monai_mil_ext.utils import BagKeys, check_choice

from .slice_order import PLANES, SliceOrder

__all__ = ["SliceScoresToVolume", "SliceScoresToVolumeD", "SliceScoresToVolumeDict", "SliceScoresToVolumed"]


class SliceScoresToVolume(Transform):
    """Fill every slice of a volume with its score: the way back from :py:class:`monai_mil_ext.transforms.SliceBag`.

    The volume has the voxel array and, to the bit, the affine of the scan. Slices of a volume are evenly spaced, so
    what is nearest or half way by number is so in mm.

    Args:
        plane: of the slices, see :py:class:`monai_mil_ext.transforms.SliceBag`.
        fill: what slices without a score get, those that a stride, a range or the foreground left out: a number,
            ``"nearest"``, the score of the slice nearest to them (the lower of two), or ``"linear"``, what is between
            the scores below and above; beyond the ends the score of the end.

    Raises:
        ValueError: when ``fill`` is none of these, when scores and slice indices differ in number, or when an index is
            repeated or no slice of the volume.

    Example:
        >>> from monai_mil_ext.transforms import SliceBag
        >>> slices = SliceBag()(MetaTensor(torch.rand(1, 5, 4, 3)))
        >>> where = slices.slice_index[[0, 2]], slices.affine, slices.spatial_shape
        >>> volume = SliceScoresToVolume(fill="linear")(torch.tensor([0.25, 0.75]), *where)
        >>> tuple(volume.shape), volume[0, 3, 2].tolist()
        ((1, 5, 4, 3), [0.25, 0.5, 0.75])
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, plane: str = "axial", fill: float | str = 0.0) -> None:
        check_choice("plane", plane, PLANES)
        if isinstance(fill, str):
            check_choice("fill", fill, ["nearest", "linear"])
        self.plane = plane
        self.fill = fill

    def __call__(
        self,
        scores: NdarrayOrTensor,
        slice_index: NdarrayOrTensor,
        affine: NdarrayOrTensor,
        spatial_shape: NdarrayOrTensor,
    ) -> MetaTensor:
        """Turn ``scores`` (N,) or (N, A) into a float32 volume (A, X, Y, Z)."""
        values = _plain(scores).detach().float().cpu()
        values = values.unsqueeze(-1) if values.ndim == 1 else values
        index = _plain(slice_index).long().cpu()
        matrix = _plain(affine).double().cpu()
        shape = [int(size) for size in spatial_shape]
        order = SliceOrder.of(matrix, self.plane)
        num_slices = shape[order.axes[0]]
        _check_scores(values, index, num_slices)
        column = self._column(values, index, num_slices)
        sizes = [shape[axis] for axis in order.axes]
        volume = order.undo(column.T[:, :, None, None].expand(-1, *sizes)).contiguous()
        return MetaTensor(volume, affine=matrix.clone(), meta={"space": SpaceKeys.RAS})

    def _column(self, values: Tensor, index: Tensor, num_slices: int) -> Tensor:
        """Scores (S, A) of all slices of the scan."""
        number = 0.0 if isinstance(self.fill, str) else self.fill
        column = torch.full((num_slices, values.shape[1]), float(number))
        column[index] = values
        if not isinstance(self.fill, str) or not len(index):
            return column
        index, by_place = index.sort()
        values, places = values[by_place], torch.arange(num_slices)
        if self.fill == "nearest":
            return values[(places[:, None] - index).abs().argmin(dim=1)]
        lines = [np.interp(places, index, line) for line in values.T.numpy()]
        return torch.as_tensor(np.stack(lines, axis=1)).float()


class SliceScoresToVolumed(MapTransform):
    """Dictionary form of :py:class:`SliceScoresToVolume`.

    It reads ``slice_index``, ``affine`` and ``spatial_shape``, and where there is a ``mask``, it drops the padding.

    Args:
        keys: scores (N,) or (N, A) of the slices.
        plane: see :py:class:`monai_mil_ext.transforms.SliceBag`.
        fill: see :py:class:`SliceScoresToVolume`.
        allow_missing_keys: whether to pass over a key that is not there.
    """

    backend = SliceScoresToVolume.backend

    def __init__(
        self,
        keys: KeysCollection,
        plane: str = "axial",
        fill: float | str = 0.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.to_volume = SliceScoresToVolume(plane, fill)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Turn the scores of every key into a volume."""
        d = dict(data)
        index = _plain(d[BagKeys.SLICE_INDEX])
        mask = _plain(d[BagKeys.MASK]) if BagKeys.MASK in d else torch.ones(len(index), dtype=torch.bool)
        for key in self.key_iterator(d):
            d[key] = self.to_volume(_plain(d[key])[mask], index[mask], d[BagKeys.AFFINE], d[BagKeys.SPATIAL_SHAPE])
        return d


def _check_scores(values: Tensor, index: Tensor, num_slices: int) -> None:
    if values.ndim != 2 or index.shape != values.shape[:1]:
        raise ValueError(
            f"`scores` must have shape (N,) or (N, A) for `slice_index` (N,), "
            f"got {tuple(values.shape)} for {tuple(index.shape)}."
        )
    if index.unique().numel() != index.numel():
        raise ValueError("`slice_index` must name a slice once, got repeated ones (padding that should be dropped?).")
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < num_slices:
        raise ValueError(f"`slice_index` must be 0 to {num_slices - 1}, got {int(index.min())} to {int(index.max())}.")


def _plain(values: NdarrayOrTensor) -> Tensor:
    return values.as_tensor() if isinstance(values, MetaTensor) else torch.as_tensor(values)


SliceScoresToVolumeD = SliceScoresToVolumeDict = SliceScoresToVolumed
