"""Transforms that cut a scan into a bag of slices."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform, apply_pending
from monai.utils import MetaKeys, MONAIEnvVars, TraceKeys, ensure_tuple_rep
from monai.utils.enums import TransformBackends
from torch import Tensor
from torch.nn import functional as F

from monai_mil_ext.data.scans.stack_grid import VolumeSlices
from monai_mil_ext.utils import BagKeys, check_choice, check_positive, check_positive_number

from .scores_to_volume import PLACES, SliceScoresToVolume
from .slice_order import SliceOrder, checked_affine, irregular_slices
from .slice_selection import SliceSelection

__all__ = ["SliceBag", "SliceBagD", "SliceBagDict", "SliceBagd", "SlicedScan"]


class SlicedScan(NamedTuple):
    """Selected slices of a scan in ascending order, with the geometry that leads back to its voxel array."""

    bag: Tensor  # (N, C, h, w), the neighbors of a slice follow one another within each channel
    position: Tensor  # (N,) mm along the normal of the slices
    validity: Tensor  # (N,) False for slices that are constant or not finite
    slice_index: Tensor  # (N,) number of the slice in the scan, 0 = lowest position
    affine: Tensor  # (4, 4) float64, from indices of the scan's voxel array to RAS mm
    spatial_shape: Tensor  # (3,) shape of the scan's voxel array
    slice_position: Tensor | None = None  # (S, 3) of an irregular series: RAS mm of the first voxel of all its slices
    slice_thickness: Tensor | None = None  # (S,) of an irregular series: mm, 0 if unknown


class SliceBag(InvertibleTransform):
    """Cut a scan (C, X, Y, Z) into slices (N, C, h, w), independent of the order of its voxel array.

    The voxel axes closest to the plane become rows and columns in radiological orientation. *Axial*: rows front to
    back, columns right to left, slices from the feet up. *Coronal*: rows downwards, columns right to left, slices from
    back to front. *Sagittal*: rows downwards, columns front to back, slices from left to right. Nothing is resampled,
    so an oblique scan keeps its slices. A scan of one slice becomes a bag of one instance.

    The position of slice k is :math:`p_k = n^T x_k` with the unit normal n of the slices, oriented so that positions
    ascend, and any point :math:`x_k` of slice k in RAS mm. The slices of an irregular DICOM series that was read with
    ``irregular="allow"`` have their own positions; they can be cut in the plane of the series only.

    With n neighbors on either side, channel c becomes the channels c(2n + 1) to c(2n + 1) + 2n: channel c of the slices
    k - n, ..., k, ..., k + n. A slice is *valid* if its own voxels are finite and, in some channel, not all equal;
    padding and regions outside of the scan, as resampling adds them, are not valid.

    The bag keeps metadata and transform history of the scan, so :py:class:`monai.transforms.Invertd` puts scores (N,)
    or (N, A) of the slices back into the scan and inverts the MONAI transforms before this one. Pending operations of a
    lazy scan are evaluated first.

    Args:
        plane: ``"axial"``, ``"coronal"`` or ``"sagittal"``.
        spatial_size: height and width to which slices are resized, after padding to a square with the minimum of the
            scan; None keeps their size. Pixels are then assumed to be square, unless ``pixel_mm`` is given.
        mode: ``"bilinear"``, with antialiasing, or ``"nearest"``, for masks.
        selection: slices to take, and the number of their neighbors; None takes all slices without neighbors.
        fill: value that the inverse assigns to slices that were not selected, see
            :py:class:`monai_mil_ext.transforms.SliceScoresToVolume`.
        pixel_mm: size in mm to which pixels are resampled, so that structures have one size in all scans; None keeps
            pixels. With ``spatial_size``, slices are cropped or padded about their center to that number of such
            pixels, and not resized to it. Whole numbers of pixels move a point by less than one pixel.

    Raises:
        ValueError: if the input is not a :py:class:`monai.data.MetaTensor` (C, X, Y, Z) with an invertible affine in
            RAS mm, or no slice is selected; in the inverse, if scores don't match the bag or have no history.
        InputError: (a ``ValueError``) if an irregular series has slices in another plane, or was resampled across them.

    Example:
        >>> scan = MetaTensor(torch.rand(1, 5, 4, 3), affine=torch.diag(torch.tensor([1.0, 1.0, 2.5, 1.0])))
        >>> slices = SliceBag("axial")(scan)
        >>> tuple(slices.bag.shape), slices.position.tolist()
        ((3, 1, 4, 5), [0.0, 2.5, 5.0])
        >>> slices = SliceBag(selection=SliceSelection(stride=2, num_neighbors=1))(scan)
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
        pixel_mm: float | None = None,
    ) -> None:
        check_choice("mode", mode, ["bilinear", "nearest"])
        SliceScoresToVolume(plane, fill)  # checks both arguments
        if spatial_size is not None:
            check_positive(spatial_size=spatial_size)
        if pixel_mm is not None:
            check_positive_number(pixel_mm=pixel_mm)
        self.plane = plane
        self.spatial_size = spatial_size
        self.mode = mode
        self.selection = SliceSelection() if selection is None else selection
        self.fill = fill
        self.pixel_mm = pixel_mm

    def __call__(self, image: MetaTensor, slice_index: Tensor | None = None) -> SlicedScan:
        """Cut ``image`` into its selected slices, or into those at ``slice_index`` (N,)."""
        image = _evaluated(image)
        affine = checked_affine(image)
        order = SliceOrder.of(affine, self.plane)
        # contiguous, since all further steps run over slices, whose pixels are far apart in the memory of a scan
        stack = order.apply(image.as_tensor().float()).contiguous()
        slices = irregular_slices(image, affine, self.plane)
        position = order.positions(affine, image.shape[1:], slices)
        index = self.selection.choose(stack, position) if slice_index is None else slice_index
        shape = torch.tensor(image.shape[1:], dtype=torch.int64)
        pixel = affine[:3, list(order.axes[1:])].norm(dim=0).tolist()
        bag = self._with_history(self._bag(stack, index, pixel), image, index)
        places = () if slices is None else (torch.tensor(slices.position), torch.tensor(slices.thickness))
        return SlicedScan(bag, position[index], _validity(_take(stack, index)), index, affine, shape, *places)

    def inverse(self, scores: MetaTensor) -> MetaTensor:
        """Map scores (N,) or (N, A) to a volume (A, X, Y, Z) of the scan; trailing zeros are taken as padding."""
        history = list(getattr(scores, "applied_operations", []))
        steps = [k for k, step in enumerate(history) if step[TraceKeys.CLASS_NAME] == SliceBag.__name__]
        if not steps:
            raise ValueError("`scores` must carry the history of a bag of slices, got none of SliceBag.")
        step = history.pop(steps[-1])
        info, values = step[TraceKeys.EXTRA_INFO], scores.as_tensor()
        index = torch.tensor([int(i) for i in info["slice_index"].split(",")])
        if values[len(index) :].any():
            raise ValueError(f"`scores` must be of {len(index)} slices, got {len(values)} that are no padding.")
        affine = torch.tensor(info["affine"], dtype=torch.float64)
        to_volume = SliceScoresToVolume(info["plane"], self.fill)
        size, places = step[TraceKeys.ORIG_SIZE], json.loads(info.get("places", "{}"))
        slices = VolumeSlices.of(places, affine.numpy(), size)
        volume = to_volume(values[: len(index)], index, affine, size, *(slices or (None,))[1:])
        meta = {key: value for key, value in scores.meta.items() if key != MetaKeys.AFFINE}
        meta |= {key: np.asarray(value) for key, value in places.items()}  # of all slices, also of those cropped away
        return MetaTensor(volume.as_tensor(), affine=volume.affine, meta=meta, applied_operations=history)

    def get_transform_info(self) -> dict[Any, Any]:
        """Return MONAI's history entry without the identity of this object, which differs between worker processes."""
        # reading MONAI's tracing flag would create an attribute, which changes the fingerprint of this transform
        traced = self.tracing if "_tracing" in vars(self) else MONAIEnvVars.trace_transform() != "0"
        values = (SliceBag.__name__, TraceKeys.NONE, traced, True)
        return dict(zip(self.transform_info_keys(), values, strict=True))

    def _with_history(self, bag: Tensor, image: MetaTensor, index: Tensor) -> Tensor:
        """Return the bag as a MetaTensor whose history any collate function handles: only strings and numbers."""
        info = {
            "plane": self.plane,
            "slice_index": ",".join(map(str, index.tolist())),
            "affine": image.affine.double().tolist(),
        }
        if PLACES[0] in image.meta:
            info["places"] = json.dumps({key: np.asarray(image.meta[key]).tolist() for key in PLACES})
        history = deepcopy(image.applied_operations)
        traced = MetaTensor(bag, meta=deepcopy(image.meta), applied_operations=history)
        return self.push_transform(traced, orig_size=tuple(image.shape[1:]), extra_info=info)

    def _bag(self, stack: Tensor, index: Tensor, pixel: Sequence[float]) -> Tensor:
        """Return slices (N, C, h, w) of ``stack`` (C, S, h, w); a slice that several instances use is resized once."""
        needed, inverse = self.selection.around(index, stack.shape[1]).unique(return_inverse=True)
        slices, outside = _take(stack, needed).transpose(0, 1), float(stack.min())
        if self.pixel_mm is not None:
            size = [max(1, round(n * mm / self.pixel_mm)) for n, mm in zip(slices.shape[-2:], pixel, strict=True)]
            slices = self._resize(slices, size)
            slices = slices if self.spatial_size is None else _centered(slices, self.spatial_size, outside)
        elif self.spatial_size is not None:
            square = _centered(slices, max(slices.shape[-2:]), outside)
            slices = self._resize(square, [self.spatial_size] * 2)
        return slices[inverse].transpose(1, 2).flatten(1, 2).contiguous()

    def _resize(self, slices: Tensor, size: list[int]) -> Tensor:
        if self.mode == "nearest":
            return F.interpolate(slices, size=size, mode="nearest-exact")
        return F.interpolate(slices, size=size, mode="bilinear", antialias=True)


class SliceBagd(MapTransform, InvertibleTransform):
    """Dictionary form of :py:class:`SliceBag`, which replaces the scan by its bag.

    It adds the items ``position``, ``validity``, ``slice_index``, ``affine``, ``spatial_shape`` and ``plane``,
    ``instance_number`` of slices that are those of a DICOM series, and of an irregular series ``slice_position`` and
    ``slice_thickness``, see :py:class:`monai_mil_ext.utils.BagKeys`. They
    and the selection of slices are those of the first key.

    Args:
        keys: scans and masks of one geometry; the order of their voxel arrays may differ.
        plane: see :py:class:`SliceBag`.
        spatial_size: see :py:class:`SliceBag`.
        mode: see :py:class:`SliceBag`; one mode for all keys or one per key.
        selection: see :py:class:`SliceBag`.
        fill: see :py:class:`SliceBag`.
        pixel_mm: see :py:class:`SliceBag`.
        allow_missing_keys: whether to skip missing keys.

    Raises:
        ValueError: if the keys don't share one geometry (corners that differ by a tenth of a voxel or more).
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
        pixel_mm: float | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        modes = ensure_tuple_rep(mode, len(self.keys))
        self.slicers = [SliceBag(plane, spatial_size, m, selection, fill, pixel_mm) for m in modes]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Cut the scan of each key into slices."""
        d = dict(data)
        first: tuple[Hashable, Any, SlicedScan] | None = None
        for key, slicer in self.key_iterator(d, self.slicers):
            image = _evaluated(d[key])
            if first is None:
                slices = slicer(image)
                first = (key, image, slices)
                d.update({k: value for k, value in slices._asdict().items() if k != "bag" and value is not None})
                d[str(BagKeys.PLANE)] = slicer.plane
                d.update({} if slicer.pixel_mm is None else {"pixel_mm": slicer.pixel_mm})
                d.update(_instance_numbers(image, slicer.plane, slices))
            else:
                _check_same_geometry(slicer.plane, first[:2], (key, image))
                slices = slicer(image, first[2].slice_index)
            d[key] = slices.bag
        return d

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Map the scores of each key to a volume of the scan; see :py:meth:`SliceBag.inverse`."""
        d = dict(data)
        for key, slicer in self.key_iterator(d, self.slicers):
            d[key] = slicer.inverse(d[key])
        return d


def _evaluated(image: Any) -> Any:
    """Return a copy of the scan with its pending operations applied in a single resampling."""
    if not isinstance(image, MetaTensor) or not image.has_pending_operations:
        return image
    result, _ = apply_pending(MetaTensor(image))
    return result


def _take(stack: Tensor, index: Tensor) -> Tensor:
    """Return slices of ``stack`` (C, S, h, w); all of them are no copy, which a large scan may not have room for."""
    is_whole = index.tolist() == list(range(stack.shape[1]))
    return stack if is_whole else stack[:, index]


def _centered(slices: Tensor, side: int, outside: float) -> Tensor:
    """Crop or pad slices (N, C, h, w) about their center to a square."""
    height, width = slices.shape[-2:]
    top, left = (side - height) // 2, (side - width) // 2
    padding = (left, side - width - left, top, side - height - top)
    return F.pad(slices, padding, value=outside) if any(padding) else slices


def _instance_numbers(image: Any, plane: str, slices: SlicedScan) -> dict[str, Tensor]:
    """Return the InstanceNumber (N,) of the slices, if they are those of a DICOM series, also flipped or cropped."""
    numbers, original = (image.meta.get(str(key)) for key in (BagKeys.INSTANCE_NUMBER, MetaKeys.ORIGINAL_AFFINE))
    if numbers is None or original is None:
        return {}
    order, size = SliceOrder.of(slices.affine, plane), image.shape[1:]
    depth = order.axes[0]
    # the index of the slice in the series is row @ (x, y, z, 1) of a voxel of the present scan
    row = torch.linalg.solve(torch.as_tensor(original, dtype=torch.float64).cpu(), slices.affine)[2]
    across = sum(abs(float(row[axis])) * size[axis] for axis in order.axes[1:])
    voxel = size[depth] - 1 - slices.slice_index if 0 in order.flips else slices.slice_index
    place = row[depth] * voxel + row[3]
    index = place.round().long()
    if (
        across > 0.1
        or float((place - index).abs().max()) > 0.1
        or not 0 <= int(index.min()) <= int(index.max()) < len(numbers)
    ):
        return {}
    return {str(BagKeys.INSTANCE_NUMBER): torch.as_tensor(numbers).long().cpu()[index]}


def _validity(stack: Tensor) -> Tensor:
    low, high = stack.flatten(2).aminmax(dim=-1)
    return ((low < high).any(dim=0) & (low.isfinite() & high.isfinite()).all(dim=0)).cpu()


def _check_same_geometry(plane: str, *scans: tuple[Hashable, Any]) -> None:
    grids, irregular = [], False
    for _, image in scans:
        affine, sizes = checked_affine(image), image.shape[1:]
        order, slices = SliceOrder.of(affine, plane), irregular_slices(image, affine, plane)
        irregular |= slices is not None
        corners = [order.corners(affine, torch.tensor(sizes)), order.slice_corners(affine, sizes, slices)]
        grids.append(([sizes[a] for a in order.axes], corners, affine))
    (shape, corners, affine), (other_shape, other_corners, _) = grids
    voxel = float(affine[:3, :3].norm(dim=0).min())
    # the affine of an irregular series is a mean
    pairs = [] if shape != other_shape else list(zip(corners, other_corners, strict=True))[int(irregular) :]
    if not pairs or max(float((a - b).norm(dim=-1).max()) for a, b in pairs) >= voxel / 10:
        got = (f"{str(k)!r} of shape {list(v.shape[1:])} with affine {v.affine.tolist()}" for k, v in scans)
        raise ValueError(f"`keys` must share one geometry, got {' and '.join(got)}.")


SliceBagD = SliceBagDict = SliceBagd
