"""Facts that pictures of a scan show beside its slices: sides of the patient, millimeters, numbers and window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from monai_mil_ext.transforms.scans.slice_order import PLANES, SliceOrder, item_plane
from monai_mil_ext.utils import BagKeys, check_choice, drop_padding

__all__ = ["Sides", "SliceDisplay"]

OPPOSITE = {"S": "I", "I": "S", "A": "P", "P": "A", "R": "L", "L": "R"}
TOLERANCE = 1e-3  # of values in [0, 1], which interpolation may leave
GRAY_PERCENTILES = (0.5, 99.5)
Sides = tuple[str, str, str, str]  # letters at the left, right, top and bottom of an image


@dataclass(frozen=True)
class SliceDisplay:
    """Facts that pictures show beside the slices of a scan; without them there are neither letters nor millimeters.

    Args:
        plane: plane of the slices in the orientation of :py:class:`monai_mil_ext.transforms.SliceBag`; ``None`` if the
            orientation is unknown.
        pixel_mm: height and width of a pixel in mm; ``None`` if they are unknown, so that nothing is in proportion.
        slice_index: index (N,) of each slice in the scan, 0 = lowest position; by default 0 to N - 1.
        num_slices: number of slices of the scan; by default the length of the bag.
        instance_number: InstanceNumber (N,) of DICOM.
        window: window or normalization of the values, as a text.
        field: first and last row, and first and last column (excluded), of the field of view in a padded slice.

    Raises:
        ValueError: if the plane is unknown, or a pixel has no positive size.

    Example:
        >>> display = SliceDisplay("axial", (0.8, 0.8), np.array([11, 13]), 48)
        >>> display.name(1), display.sides
        ('slice 14 of 48', ('R', 'L', 'A', 'P'))
    """

    plane: str | None = None
    pixel_mm: tuple[float, float] | None = None
    slice_index: Any = None
    num_slices: int | None = None
    instance_number: Any = None
    window: str = ""
    field: tuple[int, int, int, int] | None = None

    def __post_init__(self) -> None:
        if self.plane is not None:
            check_choice("plane", self.plane, PLANES)
        if self.pixel_mm is not None and not all(np.isfinite(mm) and mm > 0 for mm in self.pixel_mm):
            raise ValueError(f"`pixel_mm` must be a positive height and width, got {self.pixel_mm}.")

    @classmethod
    def of(cls, item: Mapping[Any, Any], size: Sequence[int], plane: str | None = None) -> SliceDisplay:
        """Collect the facts from an item of a scan.

        Args:
            item: item with what :py:class:`monai_mil_ext.transforms.SliceBagd` adds. ``pixel_mm`` of a bag that was
                resampled in its plane goes before that of the scan.
            size: height and width of the slices.
            plane: see :py:func:`monai_mil_ext.transforms.scans.slice_order.item_plane`.
        """
        name = item_plane(item, plane)
        index, number = (_rows(item, key) for key in (BagKeys.SLICE_INDEX, BagKeys.INSTANCE_NUMBER))
        known = cls(name, None, index, None, number, str(item.get(BagKeys.WINDOW, "")))
        if BagKeys.AFFINE in item and BagKeys.SPATIAL_SHAPE in item:
            known = known._with_geometry(item, size)
        return replace(known, pixel_mm=_pair(item["pixel_mm"]), field=None) if "pixel_mm" in item else known

    def _with_geometry(self, item: Mapping[Any, Any], size: Sequence[int]) -> SliceDisplay:
        """Add number of slices, size of a pixel and field of view, as far as affine and shape of the scan tell them.

        :py:class:`monai_mil_ext.transforms.SliceBag` pads slices to a square before it resizes them.
        """
        affine = torch.as_tensor(item[BagKeys.AFFINE]).double().cpu()
        shape = [int(n) for n in item[BagKeys.SPATIAL_SHAPE]]
        depth, *axes = SliceOrder.of(affine, str(self.plane)).axes
        own, mm = [shape[axis] for axis in axes], [float(affine[:3, axis].norm()) for axis in axes]
        known = replace(self, num_slices=shape[depth])
        if list(size) == own:
            return replace(known, pixel_mm=(mm[0], mm[1]))
        if size[0] != size[1]:  # cropped or resampled by a transform that does not say how
            return known
        side = max(own)
        zoom = size[0] / side
        ends = [round(zoom * end) for n in own for end in ((side - n) // 2, (side - n) // 2 + n)]
        field = (ends[0], max(ends[1], ends[0] + 1), ends[2], max(ends[3], ends[2] + 1))
        return replace(known, pixel_mm=(mm[0] / zoom, mm[1] / zoom), field=field)

    def crop(self, images: Any) -> Any:
        """Return slices or masks (N, h, w) without padding; labels (N,) and None stay as they are."""
        if self.field is None or images is None or images.ndim != 3:
            return images
        top, bottom, left, right = self.field
        return images[:, top:bottom, left:right]

    def fit_gray(self, images: Any) -> tuple[Any, SliceDisplay]:
        """Return slices in [0, 1], and the display that says how they were scaled.

        Values within [0, 1] stay as they are. Others, such as those of a z normalization, are scaled by their 0.5 and
        99.5 percentiles, which ``window`` then states.
        """
        images = np.nan_to_num(np.asarray(images, dtype=np.float32))
        if images.size == 0 or (images.min() >= -TOLERANCE and images.max() <= 1 + TOLERANCE):
            return images, self
        low, high = np.percentile(images, GRAY_PERCENTILES)
        shown = f"shown from {low:.3g} to {high:.3g}"
        scaled = np.clip((images - low) / max(float(high - low), 1e-6), 0, 1)
        return scaled, replace(self, window=", ".join(filter(None, [self.window, shown])))

    @property
    def directions(self) -> str:
        """Return the letters of increasing slice, row and column number, or no letters."""
        return "" if self.plane is None else PLANES[self.plane]

    @property
    def sides(self) -> Sides:
        """Return the letters at the left, right, top and bottom of a slice."""
        return self.sides_of(*self.directions[1:]) if self.directions else ("", "", "", "")

    @staticmethod
    def sides_of(down: str, right: str) -> Sides:
        """Return the letters of an image whose rows run towards ``down`` and whose columns run towards ``right``."""
        return OPPOSITE[right], right, OPPOSITE[down], down

    def number(self, i: int) -> int:
        """Return the number of a slice in the scan, as people count: 1 is the lowest one."""
        return 1 + (i if self.slice_index is None else int(self.slice_index[i]))

    def name(self, i: int, count: int | None = None) -> str:
        """Return ``"slice 12 of 48"``; ``count`` is the number of slices where that of the scan is unknown."""
        total = self.num_slices or (count if self.slice_index is None else None)
        return f"slice {self.number(i)}{f' of {total}' if total else ''}"

    def instance(self, i: int) -> int | None:
        """Return the InstanceNumber of a slice, by which DICOM viewers call it, or None."""
        number = None if self.instance_number is None else int(self.instance_number[i])
        return number if number is not None and number >= 0 else None

    def place(self, i: int, position: float) -> str:
        """Return ``"47.0 mm, InstanceNumber 37"``."""
        number = self.instance(i)
        return f"{round(float(position), 1) + 0:.1f} mm{'' if number is None else f', InstanceNumber {number}'}"


def _pair(value: Any) -> tuple[float, float]:
    values = np.broadcast_to(np.asarray(value, dtype=float).ravel(), 2)
    return float(values[0]), float(values[1])


def _rows(item: Mapping[Any, Any], key: str) -> Any:
    """Return the rows of an item (N,) of the slices without padding, or None."""
    if item.get(key) is None:
        return None
    values = torch.as_tensor(item[key])
    mask = item.get(BagKeys.MASK)
    return (drop_padding(values, item) if mask is not None and len(mask) == len(values) else values).cpu().numpy()
