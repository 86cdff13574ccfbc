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
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple_rep
from monai.utils.enums import TransformBackends
from numpy.typing import NDArray
from torch import Tensor

from monai_mil_ext.data.scans.stack_grid import VolumeSlices
from monai_mil_ext.utils import BagKeys, check_choice, drop_padding

from .slice_order import PLANES, SliceOrder, item_plane

__all__ = ["SliceScoresToVolume", "SliceScoresToVolumeD", "SliceScoresToVolumeDict", "SliceScoresToVolumed"]

# where the slices of an irregular series are, with the affine of the voxel array that they belong to
PLACES = (str(BagKeys.SLICE_POSITION), str(BagKeys.SLICE_THICKNESS), str(MetaKeys.ORIGINAL_AFFINE))


class SliceScoresToVolume(Transform):
    """Fill every slice of a volume with its score, as the inverse of :py:class:`monai_mil_ext.transforms.SliceBag`.

    The volume has the shape of the voxel array and exactly the affine of the scan. For the slices of an irregular
    series, which no affine describes, the metadata have ``slice_position`` and ``slice_thickness``, with which
    :py:func:`monai_mil_ext.data.write_nifti` puts them onto a regular grid.

    Args:
        plane: plane of the slices, see :py:class:`monai_mil_ext.transforms.SliceBag`.
        fill: value of slices without a score (skipped by a stride, a range or a foreground mask): a number;
            ``"nearest"``, the score of the nearest slice (of the lower one if two are equally near); or ``"linear"``,
            interpolation between the scores below and above, and beyond the ends the score of the last slice. Distances
            are those in mm.

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
        slice_position: NdarrayOrTensor | None = None,
        slice_thickness: NdarrayOrTensor | None = None,
    ) -> MetaTensor:
        """Convert ``scores`` (N,) or (N, A) to a float32 volume (A, X, Y, Z).

        ``slice_position`` (S, 3) and ``slice_thickness`` (S,) are those of an irregular series.
        """
        values = _plain(scores).detach().float().cpu()
        values = values.unsqueeze(-1) if values.ndim == 1 else values
        index = _plain(slice_index).long().cpu()
        matrix = _plain(affine).double().cpu()
        shape = [int(size) for size in spatial_shape]
        order = SliceOrder.of(matrix, self.plane)
        num_slices = shape[order.axes[0]]
        _check_scores(values, index, num_slices)
        slices = _slices(slice_position, slice_thickness, order.axes[0], num_slices)
        heights = torch.arange(num_slices) if slices is None else order.positions(matrix, shape, slices)
        column = self._column(values, index, heights.numpy())
        sizes = [shape[axis] for axis in order.axes]
        volume = order.undo(column.T[:, :, None, None].expand(-1, *sizes)).contiguous()
        return MetaTensor(volume, affine=matrix.clone(), meta={"space": SpaceKeys.RAS, **_places(slices, matrix)})

    def _column(self, values: Tensor, index: Tensor, heights: NDArray[np.floating]) -> Tensor:
        """Return the scores (S, A) of all slices of the scan, which ascend by ``heights`` (S,)."""
        number = 0.0 if isinstance(self.fill, str) else self.fill
        column = torch.full((len(heights), values.shape[1]), float(number))
        column[index] = values
        if not isinstance(self.fill, str) or not len(index):
            return column
        index, order = index.sort()
        values, scored = values[order], heights[index.numpy()]
        if self.fill == "nearest":
            return values[abs(heights[:, None] - scored).argmin(axis=1)]
        lines = [np.interp(heights, scored, line) for line in values.T.numpy()]
        return torch.as_tensor(np.stack(lines, axis=1)).float()


class SliceScoresToVolumed(MapTransform):
    """Dictionary form of :py:class:`SliceScoresToVolume`.

    It uses the items ``slice_index``, ``affine`` and ``spatial_shape``, and of an irregular series ``slice_position``
    and ``slice_thickness``; it drops padding if there is a ``mask``.

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
        geometry = (d[BagKeys.AFFINE], d[BagKeys.SPATIAL_SHAPE], *(d.get(key) for key in PLACES[:2]))
        for key, name in self.key_iterator(d, self.names):
            d[name] = to_volume(drop_padding(d[key], d), index, *geometry)
        return d


def _slices(position: Any, thickness: Any, axis: int, num_slices: int) -> VolumeSlices | None:
    if position is None:
        return None
    places = np.asarray(position, dtype=float)
    thick = np.zeros(num_slices) if thickness is None else np.asarray(thickness, dtype=float)
    if places.shape != (num_slices, 3) or thick.shape != (num_slices,):
        got = f"{places.shape} and {thick.shape}"
        raise ValueError(
            f"`slice_position` and `slice_thickness` must have shapes ({num_slices}, 3) and ({num_slices},), got {got}."
        )
    return VolumeSlices(axis, places, thick)


def _places(slices: VolumeSlices | None, affine: Tensor) -> dict[str, Any]:
    """Return the metadata of the slices of a volume with such an affine."""
    if slices is None:
        return {}
    across = [a for a in range(3) if a != slices.axis]
    loaded = affine[:, [*across, slices.axis, 3]].numpy()
    return dict(zip(PLACES, (slices.position, slices.thickness, loaded), strict=True))


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
