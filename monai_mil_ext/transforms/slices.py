"""From a scan to the bag of its slices."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import ensure_tuple_rep
from monai.utils.enums import TransformBackends
from torch import Tensor
from torch.nn import functional as F

from monai_mil_ext.utils import BagKeys, check_choice, check_positive

from .slice_order import PLANES, SliceOrder, checked_affine

__all__ = ["SliceBag", "SliceBagD", "SliceBagDict", "SliceBagd", "Slices"]


class Slices(NamedTuple):
    """The slices of a scan, ascending, and what leads back to its voxel array."""

    bag: Tensor  # (N, C, h, w)
    position: Tensor  # (N,) mm along the normal of the slices
    slice_index: Tensor  # (N,) 0 = lowest position
    affine: Tensor  # (4, 4) float64, voxel index of the scan's own array to RAS mm
    spatial_shape: Tensor  # (3,) of the scan's own array


class SliceBag(Transform):
    """Cut a scan (C, X, Y, Z) into its slices (N, C, h, w), whatever the order of its voxel array.

    The voxel axes closest to the plane become rows and columns as a radiologist sees them: *axial*, rows front to
    back and columns right to left, slices from the feet up; *coronal*, rows downwards, columns right to left, slices
    from the back forwards; *sagittal*, rows downwards, columns front to back, slices from left to right. No voxel is
    resampled for it, so the slices of an oblique scan stay its own. A scan of one slice is a bag of one.

    The position of slice k is :math:`p_k = n^T x_k`, with the unit normal n of the slices, turned to ascend, and any
    point :math:`x_k` of slice k in RAS mm.

    Args:
        plane: ``"axial"``, ``"coronal"`` or ``"sagittal"``.
        spatial_size: None keeps the slices as they are; else they are padded to a square with the scan's minimum and
            resized to this height and width. Pixels are taken as square: resample a scan to equal spacing
            first (:py:class:`monai.transforms.Spacing`) where they are not.
        mode: ``"bilinear"``, with antialiasing, or ``"nearest"``, for masks.

    Raises:
        ValueError: when the input is no :py:class:`monai.data.MetaTensor` (C, X, Y, Z) with an invertible affine in
            RAS mm.

    Example:
        >>> scan = MetaTensor(torch.rand(1, 5, 4, 3), affine=torch.diag(torch.tensor([1.0, 1.0, 2.5, 1.0])))
        >>> slices = SliceBag("axial")(scan)
        >>> tuple(slices.bag.shape), slices.position.tolist()
        ((3, 1, 4, 5), [0.0, 2.5, 5.0])
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, plane: str = "axial", spatial_size: int | None = None, mode: str = "bilinear") -> None:
        check_choice("plane", plane, PLANES)
        check_choice("mode", mode, ["bilinear", "nearest"])
        if spatial_size is not None:
            check_positive(spatial_size=spatial_size)
        self.plane = plane
        self.spatial_size = spatial_size
        self.mode = mode

    def __call__(self, image: MetaTensor) -> Slices:
        """Cut ``image`` into its slices."""
        affine = checked_affine(image)
        order = SliceOrder.of(affine, self.plane)
        bag = order.apply(image.as_tensor().float()).transpose(0, 1)
        if self.spatial_size is not None:
            bag = self._resize(bag, self.spatial_size)
        position = order.positions(affine, image.shape[1:])
        shape = torch.tensor(image.shape[1:], dtype=torch.int64)
        return Slices(bag.contiguous(), position, torch.arange(len(bag)), affine, shape)

    def _resize(self, bag: Tensor, size: int) -> Tensor:
        height, width = bag.shape[-2:]
        side = max(height, width)
        top, left = (side - height) // 2, (side - width) // 2
        padding = (left, side - width - left, top, side - height - top)
        square = F.pad(bag, padding, value=float(bag.min()))
        if self.mode == "nearest":
            return F.interpolate(square, size=(size, size), mode="nearest-exact")
        return F.interpolate(square, size=(size, size), mode="bilinear", antialias=True)


class SliceBagd(MapTransform):
    """Dictionary form of :py:class:`SliceBag`: the bag takes the place of the scan.

    Beside it stand, once for all keys, ``position``, ``slice_index``, ``affine`` and ``spatial_shape``, see
    :py:class:`monai_mil_ext.utils.BagKeys`; affine and shape are those of the first key.

    Args:
        keys: scans, and masks in their geometry; the order of the voxel arrays may differ.
        plane: see :py:class:`SliceBag`.
        spatial_size: see :py:class:`SliceBag`.
        mode: see :py:class:`SliceBag`; one for all keys, or one for each.
        allow_missing_keys: whether to pass over a key that is not there.

    Raises:
        ValueError: when the keys don't share one geometry (corners a tenth of a voxel apart, or more).
    """

    backend = SliceBag.backend

    def __init__(
        self,
        keys: KeysCollection,
        plane: str = "axial",
        spatial_size: int | None = None,
        mode: str | tuple[str, ...] = "bilinear",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.slicers = [SliceBag(plane, spatial_size, m) for m in ensure_tuple_rep(mode, len(self.keys))]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Cut the scan of every key into its slices."""
        d = dict(data)
        first: tuple[Hashable, Slices] | None = None
        for key, slicer in self.key_iterator(d, self.slicers):
            slices = slicer(d[key])
            d[key] = slices.bag
            if first is None:
                first = (key, slices)
                d.update({str(BagKeys(name)): value for name, value in slices._asdict().items() if name != "bag"})
            else:
                _check_same_geometry(slicer.plane, first, (key, slices))
        return d


def _check_same_geometry(plane: str, one: tuple[Hashable, Slices], other: tuple[Hashable, Slices]) -> None:
    grids = []
    for _, slices in (one, other):
        order = SliceOrder.of(slices.affine, plane)
        shape = [int(slices.spatial_shape[a]) for a in order.axes]
        grids.append((shape, order.corners(slices.affine, slices.spatial_shape)))
    (shape, corners), (other_shape, other_corners) = grids
    voxel = float(one[1].affine[:3, :3].norm(dim=0).min())
    if shape != other_shape or float((corners - other_corners).norm(dim=1).max()) >= voxel / 10:
        raise ValueError(
            "`keys` must share one geometry, got "
            + " and ".join(
                f"{str(key)!r} of shape {s.spatial_shape.tolist()} with affine {s.affine.tolist()}"
                for key, s in (one, other)
            )
            + "."
        )


SliceBagD = SliceBagDict = SliceBagd
