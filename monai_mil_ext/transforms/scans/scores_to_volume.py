"""Transforms from scores of slices to a volume in the geometry of the scan."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import SpaceKeys, ensure_tuple_rep
from monai.utils.enums import TransformBackends
from torch import Tensor

from monai_mil_ext.utils import BagKeys, check_choice, drop_padding

from .slice_order import PLANES, SliceOrder, item_plane

__all__ = ["SliceScoresToVolume", "SliceScoresToVolumeD", "SliceScoresToVolumeDict", "SliceScoresToVolumed"]


class SliceScoresToVolume(Transform):
    """Fill every slice of a volume with its score, as the inverse of :py:class:`monai_mil_ext.transforms.SliceBag`.

    The volume has the shape of the voxel array and exactly the affine of the scan. Slices of a volume are evenly
    spaced, so distances in slice numbers are proportional to those in mm.

    Args:
        plane: plane of the slices, see :py:class:`monai_mil_ext.transforms.SliceBag`.
        fill: value of slices without a score (skipped by a stride, a range or a foreground mask): a number;
            ``"nearest"``, the score of the nearest slice (of the lower one if two are equally near); or ``"linear"``,
            interpolation between the scores below and above, and beyond the ends the score of the last slice.

    Raises:
        ValueError: when ``fill`` is not allowed, scores and slice indices differ in number, or an index is repeated or
            not a slice of the volume.

    Example:
        >>> from monai_mil_ext.transforms import SliceBag
        >>> slices = SliceBag()(MetaTensor(torch.rand(1, 5, 4, 3)))
        >>> geometry = slices.slice_index[[0, 2]], slices.affine, slices.spatial_shape
        >>> volume = SliceScoresToVolume(fill="linear")(torch.tensor([0.25, 0.75]), *geometry)
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
        """Convert ``scores`` (N,) or (N, A) to a float32 volume (A, X, Y, Z)."""
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
        """Return the scores (S, A) of all slices of the scan."""
        number = 0.0 if isinstance(self.fill, str) else self.fill
        column = torch.full((num_slices, values.shape[1]), float(number))
        column[index] = values
        if not isinstance(self.fill, str) or not len(index):
            return column
        index, order = index.sort()
        values, slices = values[order], torch.arange(num_slices)
        if self.fill == "nearest":
            return values[(slices[:, None] - index).abs().argmin(dim=1)]
        lines = [np.interp(slices, index, line) for line in values.T.numpy()]
        return torch.as_tensor(np.stack(lines, axis=1)).float()


class SliceScoresToVolumed(MapTransform):
    """Dictionary form of :py:class:`SliceScoresToVolume`.

    It uses the items ``slice_index``, ``affine`` and ``spatial_shape``, and drops padding if there is a ``mask``.

    Args:
        keys: scores (N,) or (N, A) of the slices.
        names: keys of the volumes; by default they replace the scores.
        plane: see :py:class:`monai_mil_ext.transforms.SliceBag`; by default the item ``plane``, or else axial.
        fill: see :py:class:`SliceScoresToVolume`.
        allow_missing_keys: whether to skip missing keys.

    Raises:
        ValueError: when ``plane`` differs from the item ``plane``.
    """

    backend = SliceScoresToVolume.backend

    def __init__(
        self,
        keys: KeysCollection,
        names: KeysCollection | None = None,
        plane: str | None = None,
        fill: float | str = 0.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.names = self.keys if names is None else ensure_tuple_rep(names, len(self.keys))
        SliceScoresToVolume(plane or "axial", fill)  # checks both arguments
        self.plane = plane
        self.fill = fill

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Convert the scores of each key to a volume."""
        d = dict(data)
        index = drop_padding(d[BagKeys.SLICE_INDEX], d)
        to_volume = SliceScoresToVolume(item_plane(d, self.plane), self.fill)
        for key, name in self.key_iterator(d, self.names):
            d[name] = to_volume(drop_padding(d[key], d), index, d[BagKeys.AFFINE], d[BagKeys.SPATIAL_SHAPE])
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
