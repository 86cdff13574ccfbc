"""From a scan to the bag of its slices."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform, apply_pending
from monai.utils import MetaKeys, MONAIEnvVars, TraceKeys, ensure_tuple_rep
from monai.utils.enums import TransformBackends
from torch import Tensor
from torch.nn import functional as F

from monai_mil_ext.utils import check_choice, check_positive

from .slice_order import SliceOrder, checked_affine
from .slice_scores import SliceScoresToVolume
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


class SliceBag(InvertibleTransform):
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

    The bag keeps the scan's meta data and history, so :py:class:`monai.transforms.Invertd` puts scores (N,) or (N, A)
    of its slices back into the scan, and on through MONAI's transforms before this one. What is pending in a lazy
    scan is evaluated first.

    Args:
        plane: ``"axial"``, ``"coronal"`` or ``"sagittal"``.
        spatial_size: None keeps the slices as they are; else they are padded to a square with the scan's minimum and
            resized to this height and width. Pixels are taken as square: resample a scan to equal spacing
            first (:py:class:`monai.transforms.Spacing`) where they are not.
        mode: ``"bilinear"``, with antialiasing, or ``"nearest"``, for masks.
        selection: which slices to take, and their neighbours; None takes all of them, without neighbours.
        fill: what the inverse gives slices that were not taken, see
            :py:class:`monai_mil_ext.transforms.SliceScoresToVolume`.

    Raises:
        ValueError: when the input is no :py:class:`monai.data.MetaTensor` (C, X, Y, Z) with an invertible affine in
            RAS mm, or when no slice is selected; in the inverse, when scores don't fit the bag or have no history.

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
        fill: float | str = 0.0,
    ) -> None:
        check_choice("mode", mode, ["bilinear", "nearest"])
        SliceScoresToVolume(plane, fill)  # which checks both
        if spatial_size is not None:
            check_positive(spatial_size=spatial_size)
        self.plane = plane
        self.spatial_size = spatial_size
        self.mode = mode
        self.selection = SliceSelection() if selection is None else selection
        self.fill = fill

    def __call__(self, image: MetaTensor, slice_index: Tensor | None = None) -> Slices:
        """Cut ``image`` into its slices: the selected ones, or those at ``slice_index`` (N,)."""
        image = _evaluated(image)
        affine = checked_affine(image)
        order = SliceOrder.of(affine, self.plane)
        # in one piece: everything that follows goes through the slices, whose pixels lie far apart in a scan
        stack = order.apply(image.as_tensor().float()).contiguous()
        position = order.positions(affine, image.shape[1:])
        index = self.selection.choose(stack, position) if slice_index is None else slice_index
        shape = torch.tensor(image.shape[1:], dtype=torch.int64)
        bag = self._traced(self._bag(stack, index), image, index)
        return Slices(bag, position[index], _validity(stack[:, index]), index, affine, shape)

    def inverse(self, scores: MetaTensor) -> MetaTensor:
        """Put scores (N,) or (N, A) into a volume (A, X, Y, Z) of the scan; zeros behind the last one are padding."""
        past = list(getattr(scores, "applied_operations", []))
        own = [k for k, step in enumerate(past) if step[TraceKeys.CLASS_NAME] == SliceBag.__name__]
        if not own:
            raise ValueError("`scores` must carry the history of a bag of slices, got none of SliceBag.")
        step = past.pop(own[-1])
        how, values = step[TraceKeys.EXTRA_INFO], scores.as_tensor()
        index = torch.tensor([int(i) for i in how["slice_index"].split(",")])
        if values[len(index) :].any():
            raise ValueError(f"`scores` must be of {len(index)} slices, got {len(values)} that are no padding.")
        affine = torch.tensor(how["affine"], dtype=torch.float64)
        to_volume = SliceScoresToVolume(how["plane"], self.fill)
        volume = to_volume(values[: len(index)], index, affine, step[TraceKeys.ORIG_SIZE])
        meta = {key: value for key, value in scores.meta.items() if key != MetaKeys.AFFINE}
        return MetaTensor(volume.as_tensor(), affine=volume.affine, meta=meta, applied_operations=past)

    def get_transform_info(self) -> dict[Any, Any]:
        """What MONAI writes into a history, without the identity of this object: a worker process has another one."""
        # MONAI's flag of tracing is made by the first look at it, and would change the fingerprint of this transform
        traced = self.tracing if "_tracing" in vars(self) else MONAIEnvVars.trace_transform() != "0"
        values = (SliceBag.__name__, TraceKeys.NONE, traced, True)
        return dict(zip(self.transform_info_keys(), values, strict=True))

    def _traced(self, bag: Tensor, image: MetaTensor, index: Tensor) -> Tensor:
        """The bag as a MetaTensor, with a history of strings and numbers only, which any collation takes."""
        how = {
            "plane": self.plane,
            "slice_index": ",".join(map(str, index.tolist())),
            "affine": image.affine.double().tolist(),
        }
        history = deepcopy(image.applied_operations)
        traced = MetaTensor(bag, meta=deepcopy(image.meta), applied_operations=history)
        return self.push_transform(traced, orig_size=tuple(image.shape[1:]), extra_info=how)

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
        square = F.pad(slices, padding, value=outside) if any(padding) else slices
        if self.mode == "nearest":
            return F.interpolate(square, size=(size, size), mode="nearest-exact")
        return F.interpolate(square, size=(size, size), mode="bilinear", antialias=True)


class SliceBagd(MapTransform, InvertibleTransform):
    """Dictionary form of :py:class:`SliceBag`: the bag takes the place of the scan.

    Beside it stand, once for all keys, ``position``, ``validity``, ``slice_index``, ``affine`` and ``spatial_shape``,
    see :py:class:`monai_mil_ext.utils.BagKeys`; they are those of the first key, and so is the choice of slices.

    Args:
        keys: scans, and masks in their geometry; the order of the voxel arrays may differ.
        plane: see :py:class:`SliceBag`.
        spatial_size: see :py:class:`SliceBag`.
        mode: see :py:class:`SliceBag`; one for all keys, or one for each.
        selection: see :py:class:`SliceBag`.
        fill: see :py:class:`SliceBag`.
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
        fill: float | str = 0.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        modes = ensure_tuple_rep(mode, len(self.keys))
        self.slicers = [SliceBag(plane, spatial_size, m, selection, fill) for m in modes]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Cut the scan of every key into its slices."""
        d = dict(data)
        first: tuple[Hashable, Any, Slices] | None = None
        for key, slicer in self.key_iterator(d, self.slicers):
            image = _evaluated(d[key])
            if first is None:
                slices = slicer(image)
                first = (key, image, slices)
                d.update({name: value for name, value in slices._asdict().items() if name != "bag"})
            else:
                _check_same_geometry(slicer.plane, first[:2], (key, image))
                slices = slicer(image, first[2].slice_index)
            d[key] = slices.bag
        return d

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Put the scores of every key into a volume of the scan; see :py:meth:`SliceBag.inverse`."""
        d = dict(data)
        for key, slicer in self.key_iterator(d, self.slicers):
            d[key] = slicer.inverse(d[key])
        return d


def _evaluated(image: Any) -> Any:
    """The scan as its pending operations would have it, in one resampling; the scan itself stays as it is."""
    if not isinstance(image, MetaTensor) or not image.has_pending_operations:
        return image
    result, _ = apply_pending(MetaTensor(image))
    return result


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
