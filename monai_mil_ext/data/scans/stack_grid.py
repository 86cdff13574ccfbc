"""Volumes of irregular series: where their slices are, and how they get onto a regular grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from monai.utils import MetaKeys
from numpy.typing import NDArray

from monai_mil_ext.utils import BagKeys, InputError, optional_dependency

from .dicom_slices import SeriesSlice
from .slice_stack import GAP, TO_RAS, StackGeometry, series_affine

__all__ = ["RESAMPLE", "VolumeSlices", "fill_grid", "place_stack", "resample_stack"]

ndimage = optional_dependency("", "scipy.ndimage")

RESAMPLE = "--irregular resample"
SAME = 1e-3  # steps or pixels that count as none
FINEST = 8  # largest number of grid steps in the usual step of slices


class VolumeSlices(NamedTuple):
    """Slices of the voxel array (X, Y, Z) of an irregular series, which no affine describes."""

    axis: int  # axis of the array along which slices follow one another
    position: NDArray[np.float64]  # (S, 3) RAS mm of the first voxel of each slice
    thickness: NDArray[np.float64]  # (S,) mm, 0 if unknown

    @classmethod
    def of(cls, meta: Mapping[Any, Any], affine: NDArray[np.float64], shape: Sequence[int]) -> VolumeSlices | None:
        """Return the slices of a volume with such metadata, or ``None`` if its affine says where they are.

        The metadata are those of the series as it was read. Its voxel array may have been flipped, permuted, cropped,
        or resampled within the slices.

        Raises:
            InputError: when the volume was resampled or padded across the slices.
        """
        if str(BagKeys.SLICE_POSITION) not in meta:
            return None
        position = np.asarray(meta[str(BagKeys.SLICE_POSITION)], dtype=float).reshape(-1, 3)
        thickness = np.asarray(meta.get(str(BagKeys.SLICE_THICKNESS), np.zeros(len(position))), dtype=float).ravel()
        loaded, affine = np.asarray(meta[MetaKeys.ORIGINAL_AFFINE], dtype=float), np.asarray(affine, dtype=float)
        change = np.linalg.inv(loaded) @ affine  # from indices of this voxel array to those of the series
        axis = int(abs(change[2, :3]).argmax())
        index = change[2, axis] * np.arange(shape[axis]) + change[2, 3]
        number = np.rint(index).astype(int)
        others = abs(np.delete(change[2, :3], axis)) * np.delete(np.asarray(shape), axis)
        kept = max(abs(index - number).max(), others.max()) < 0.01 and 0 <= number.min() <= number.max() < len(position)
        if not kept or len(np.unique(number)) < len(number):
            raise InputError(
                "`image` must keep the slices of an irregular series until they are cut, got one that was resampled or "
                "padded across them; `irregular` can be resample.",
                option=RESAMPLE,
            )
        within = change[:2, axis, None] * np.arange(shape[axis]) + change[:2, 3, None]
        return cls(axis, position[number] + (loaded[:3, :2] @ within).T, thickness[number])


def place_stack(
    array: NDArray[np.float32], stack: Sequence[SeriesSlice], irregular: str
) -> tuple[NDArray[np.float32], NDArray[np.float64], dict[str, Any]]:
    """Return voxel array, affine (RAS mm) and metadata of the slices of a series.

    Args:
        array: voxels (X, Y, Z) of the sorted slices.
        stack: the slices.
        irregular: ``"allow"`` or ``"resample"``, see :py:class:`monai_mil_ext.data.ScanReader`; it changes nothing of a
            regular stack.
    """
    fault = StackGeometry.of(stack).fault()
    if not fault:
        return array, series_affine(stack), {}
    if irregular == "resample":
        array, affine = resample_stack(array, stack)
        step = np.linalg.norm(affine[:3, 2])
        note = f"The slices are no regular stack ({fault}): they were resampled to {array.shape[2]} every {step:g} mm."
        return array, affine, {str(BagKeys.NOTES): [note]}
    note = f"The slices are no regular stack ({fault}): they were read as they are, at their own positions."
    facts = {
        str(BagKeys.SLICE_POSITION): np.stack([item.position for item in stack]) * TO_RAS,
        str(BagKeys.SLICE_THICKNESS): np.array([item.thickness or 0.0 for item in stack]),
        str(BagKeys.NOTES): [note],
    }
    return array, series_affine(stack), facts


def resample_stack(
    array: NDArray[Any], stack: Sequence[SeriesSlice]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Resample the slices of an irregular series to a regular grid with the usual step, linearly.

    Slices that are shifted against each other are moved back, and the grid contains them all. Where there are no data,
    outside of the slices and in gaps, it has the minimum of ``array``.

    Returns:
        voxels and affine.
    """
    affine, position = series_affine(stack[:1]), np.stack([item.position for item in stack]) * TO_RAS
    thickness = np.array([item.thickness or 0.0 for item in stack])
    shift, height, normal = _places(affine, position)
    step = _usual(height)
    count = int(height[-1] / step + 0.1) + 1
    start = (height[-1] - (count - 1) * step) / 2  # the grid is as far from the first slice as from the last
    low, size = _extent(shift, array.shape, whole=False)
    voxels = _moved(array, shift - low, size) if abs(shift).max() > SAME else array
    grid = _interpolated(voxels, height, thickness, start + np.arange(count) * step)
    affine[:3, 2], affine[:3, 3] = normal * step, position[0] + affine[:3, :2] @ low + normal * start
    return np.where(np.isnan(grid), np.float32(array.min()), grid), affine


def fill_grid(
    array: NDArray[Any], affine: NDArray[np.float64], slices: VolumeSlices
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Copy the slices of an irregular series to the voxels of a regular grid that is fine enough for all of them.

    Each slice fills half of the usual step, or of its own thickness, below and above its position, but no more than
    half the way to the next slice. All other voxels are NaN. Slices that are shifted against each other are moved by
    whole pixels.

    Returns:
        voxels and affine.
    """
    array, affine = np.moveaxis(array, slices.axis, 2), np.array(affine, dtype=float)
    affine[:3, :3] = np.delete(affine[:3, :3], slices.axis, axis=1)[:, [0, 1, 1]]
    position, thickness = slices.position, slices.thickness
    shift, height, normal = _places(affine, position)
    step = _finest(height) if len(height) > 1 else float(thickness[0]) or 1.0
    z = np.arange(round(height[-1] / step) + 1) * step
    k = abs(z[:, None] - height).argmin(axis=1)
    usual = _usual(height) if len(height) > 1 else step
    filled = abs(z - height[k]) <= np.maximum(usual, thickness[k]) / 2 + SAME * step
    pixels = np.rint(shift)
    low, size = _extent(pixels, array.shape, whole=True)
    i, j = (np.arange(size[a])[:, None] - (pixels[k, a] - low[a]).astype(int) for a in (0, 1))
    inside = ((i >= 0) & (i < array.shape[0]))[:, None] & ((j >= 0) & (j < array.shape[1]))[None] & filled
    i, j = i.clip(0, array.shape[0] - 1), j.clip(0, array.shape[1] - 1)
    grid = np.where(inside, array[i[:, None], j[None], k], np.nan).astype(np.float32)
    affine[:3, 2], affine[:3, 3] = normal * step, position[0] + affine[:3, :2] @ low
    return grid, affine


def _places(
    affine: NDArray[np.float64], position: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the shift (Z, 2) in pixels and the height (Z,) in mm of slices from the first, and their normal."""
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    normal *= (np.sign((position[-1] - position[0]) @ normal) or 1) / np.linalg.norm(normal)
    axes = np.column_stack([affine[:3, :2], normal])
    across = np.linalg.solve(axes, (position - position[0]).T).T
    return across[:, :2], across[:, 2], normal


def _usual(height: NDArray[np.float64]) -> float:
    steps = np.sort(np.diff(height))
    return float(steps[(len(steps) - 1) // 2])


def _finest(height: NDArray[np.float64]) -> float:
    """Return the largest step of a grid on which each slice has a voxel of its own."""
    lowest = float(np.diff(height).min())
    for parts in range(1, FINEST + 1):
        step = _usual(height) / parts
        if abs(height - np.rint(height / step) * step).max() <= 0.1 * lowest:
            return step
    return lowest / 2


def _extent(
    shift: NDArray[np.float64], shape: Sequence[int], whole: bool
) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """Return the lowest pixel of all shifted slices, and the number of pixels to the highest."""
    low, high = np.floor(shift.min(axis=0) + SAME), np.ceil(shift.max(axis=0) - SAME)
    x, y = (int(n) for n in high - low)
    return low, (shape[0] + x, shape[1] + y)


def _moved(array: NDArray[Any], shift: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float32]:
    options: dict[str, Any] = {"order": 1, "cval": np.nan, "output": np.float32, "output_shape": size}
    moved = [
        ndimage.affine_transform(array[..., k].astype(np.float32), [1, 1], -np.round(by, 6), **options)
        for k, by in enumerate(shift)
    ]
    return np.stack(moved, axis=-1)


def _interpolated(
    voxels: NDArray[Any], height: NDArray[np.float64], thickness: NDArray[np.float64], z: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Interpolate between the slices below and above ``z``; gaps get NaN."""
    k = (np.searchsorted(height, z, side="right") - 1).clip(0, len(height) - 2)
    steps = np.diff(height)[k]
    part = (z - height[k]) / steps
    below, above = np.where(part > 1 - SAME / 10, k + 1, k), np.where(part < SAME / 10, k, k + 1)
    lower, upper = voxels[..., below], voxels[..., above]
    grid = (lower + part.astype(np.float32) * (upper - lower)).astype(np.float32)
    extent = np.maximum(_usual(height), thickness)
    nearest = np.where(part < 0.5, k, k + 1)
    gap = (steps > GAP * np.maximum(extent[k], extent[k + 1])) & (
        abs(z - height[nearest]) > extent[nearest] / 2 + SAME * steps
    )
    grid[..., gap] = np.nan
    return grid
