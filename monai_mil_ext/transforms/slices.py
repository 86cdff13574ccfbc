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

from monai_mil_ext.utils import check_choice, check_positive

from .slice_order import PLANES, SliceOrder, checked_affine
from .slice_selection import SliceSelection

__all__ = ["SliceBag", "SliceBagD", "SliceBagDict", "SliceBagd", "Slices"]


class Slices(NamedTuple):
    """The chosen slices of a scan, ascending, and what leads back to its voxel array."""

    bag: Tensor  # (N, C, h, w), neighbours of a slice behind one another within each channel
    position: Tensor  # (N,) mm along the normal of the slices
    validity: Tensor  # (N,) False for slices that are all one value, or not finite
    slice_index: Tensor  # (N,) of all slices of the scan, 0 = lowest position
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

    With n neighbours on either side, channel c becomes the channels c(2n + 1) to c(2n + 1) + 2n: the same of the slices
    k - n, ..., k, ..., k + n. A slice is *valid* when it shows anything: its own voxels are finite and, in some
    channel, not all equal. Padding, and what resampling took from outside the scan, is not.

    Args:
        plane: ``"axial"``, ``"coronal"`` or ``"sagittal"``.
        spatial_size: None keeps the slices as they are; else they are padded to a square with the scan's minimum and
            resized to this height and width. Pixels are taken as square: resample a scan to equal spacing
            first (:py:class:`monai.transforms.Spacing`) where they are not.
        mode: ``"bilinear"``, with antialiasing, or ``"nearest"``, for masks.
        selection: which slices to take, and their neighbours; None takes all of them, without neighbours.

    Raises:
        ValueError: when the input is no :py:class:`monai.data.MetaTensor` (C, X, Y, Z) with an invertible affine in
            RAS mm, or when no slice is selected.

    Example:
        >>> scan = MetaTensor(torch.rand(1, 5, 4, 3), affine=torch.diag(torch.tensor([1.0, 1.0, 2.5, 1.0])))
        >>> slices = SliceBag("axial")(scan)
        >>> tuple(slices.bag.shape), slices.position.tolist()
        ((3, 1, 4, 5), [0.0, 2.5, 5.0])
        >>> slices = SliceBag(selection=SliceSelection(stride=2, neighbours=1))(scan)
        >>> tuple(slices.bag.shape), slices.slice_index.tolist()
        ((2, 3, 4, 5), [0, 2])
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        plane: str = "axial",
        spatial_size: int | None = None,
        mode: str = "bilinear",
        selection: SliceSelection | None = None,
    ) -> None:
        check_choice("plane", plane, PLANES)
        check_choice("mode", mode, ["bilinear", "nearest"])
        if spatial_size is not None:
            check_positive(spatial_size=spatial_size)
        self.plane = plane
        self.spatial_size = spatial_size
        self.mode = mode
        self.selection = SliceSelection() if selection is None else selection

    def __call__(self, image: MetaTensor, slice_index: Tensor | None = None) -> Slices:
        """Cut ``image`` into its slices: the selected ones, or those at ``slice_index`` (N,)."""
        affine = checked_affine(image)
        order = SliceOrder.of(affine, self.plane)
        stack = order.apply(image.as_tensor().float())
        position = order.positions(affine, image.shape[1:])
        index = self.selection.choose(stack, position) if slice_index is None else slice_index
        shape = torch.tensor(image.shape[1:], dtype=torch.int64)
        return Slices(self._bag(stack, index), position[index], _validity(stack[:, index]), index, affine, shape)

    def _bag(self, stack: Tensor, index: Tensor) -> Tensor:
        """Slices (N, C, h, w) of ``stack`` (C, S, h, w), each resized once however often it is a neighbour."""
        needed, place = self.selection.around(index, stack.shape[1]).unique(return_inverse=True)
        slices = stack[:, needed].transpose(0, 1)
        if self.spatial_size is not None:
            slices = self._resize(slices, self.spatial_size, float(stack.min()))
        return slices[place].transpose(1, 2).flatten(1, 2).contiguous()

    def _resize(self, slices: Tensor, size: int, outside: float) -> Tensor:
        height, width = slices.shape[-2:]
        side = max(height, width)
        top, left = (side - height) // 2, (side - width) // 2
        padding = (left, side - width - left, top, side - height - top)
        square = F.pad(slices, padding, value=outside)
        if self.mode == "nearest":
            return F.interpolate(square, size=(size, size), mode="nearest-exact")
        return F.interpolate(square, size=(size, size), mode="bilinear", antialias=True)


class SliceBagd(MapTransform):
    """Dictionary form of :py:class:`SliceBag`: the bag takes the place of the scan.

    Beside it stand, once for all keys, ``position``, ``validity``, ``slice_index``, ``affine`` and ``spatial_shape``,
    see :py:class:`monai_mil_ext.utils.BagKeys`; they are those of the first key, and so is the choice of slices.

    Args:
        keys: scans, and masks in their geometry; the order of the voxel arrays may differ.
        plane: see :py:class:`SliceBag`.
        spatial_size: see :py:class:`SliceBag`.
        mode: see :py:class:`SliceBag`; one for all keys, or one for each.
        selection: see :py:class:`SliceBag`.
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
        selection: SliceSelection | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        modes = ensure_tuple_rep(mode, len(self.keys))
        self.slicers = [SliceBag(plane, spatial_size, m, selection) for m in modes]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Cut the scan of every key into its slices."""
        d = dict(data)
        first: tuple[Hashable, Any, Slices] | None = None
        for key, slicer in self.key_iterator(d, self.slicers):
            image = d[key]
            if first is None:
                slices = slicer(image)
                first = (key, image, slices)
                d.update({name: value for name, value in slices._asdict().items() if name != "bag"})
            else:
                _check_same_geometry(slicer.plane, first[:2], (key, image))
                slices = slicer(image, first[2].slice_index)
            d[key] = slices.bag
        return d


def _validity(stack: Tensor) -> Tensor:
    low, high = stack.flatten(2).aminmax(dim=-1)
    return ((low < high).any(dim=0) & (low.isfinite() & high.isfinite()).all(dim=0)).cpu()


def _check_same_geometry(plane: str, *scans: tuple[Hashable, Any]) -> None:
    grids = []
    for _, image in scans:
        affine, sizes = checked_affine(image), image.shape[1:]
        order = SliceOrder.of(affine, plane)
        grids.append(([sizes[a] for a in order.axes], order.corners(affine, torch.tensor(sizes)), affine))
    (shape, corners, affine), (other_shape, other_corners, _) = grids
    voxel = float(affine[:3, :3].norm(dim=0).min())
    if shape != other_shape or float((corners - other_corners).norm(dim=1).max()) >= voxel / 10:
        got = (f"{str(k)!r} of shape {list(v.shape[1:])} with affine {v.affine.tolist()}" for k, v in scans)
        raise ValueError(f"`keys` must share one geometry, got {' and '.join(got)}.")


SliceBagD = SliceBagDict = SliceBagd
