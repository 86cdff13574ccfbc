"""Rasterization of RTSTRUCT contours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.path import Path as Polygon
from numpy.typing import NDArray

__all__ = ["fill_regions"]

OFF_PLANE = 0.25  # largest distance of a contour from its slice, as a fraction of the slice spacing


def fill_regions(
    plan: Any, regions: Mapping[int, str], affine: NDArray[np.float64], shape: tuple[int, int, int]
) -> NDArray[np.bool_]:
    """Fill the closed planar contours of some regions; an inner contour of a region is a hole (XOR).

    A contour too small to contain the center of a voxel marks the voxel of its own center.

    Args:
        plan: dataset of the RTSTRUCT.
        regions: names of the regions by ROI number.
        affine: (4, 4), voxel index (column, row, slice) to RAS mm.
        shape: shape of the voxel array.

    Raises:
        ValueError: when a region has no closed contour, or a contour lies on no slice or outside its pixels.
    """
    contours = {int(roi.ReferencedROINumber): roi.get("ContourSequence") or () for roi in plan.ROIContourSequence}
    mask = np.zeros(shape, dtype=bool)
    for number, name in regions.items():
        closed = [
            c for c in contours.get(number, ()) if c.get("ContourGeometricType", "CLOSED_PLANAR") == "CLOSED_PLANAR"
        ]
        if not closed:
            raise ValueError(f"`names` must be regions with closed planar contours, got {name!r} without one.")
        region = np.zeros(shape, dtype=bool)
        for contour in closed:
            points = np.asarray(contour.ContourData, dtype=float).reshape(-1, 3)
            _fill(region, _to_voxels(points, affine), name, points)
        mask |= region
    return mask


def _to_voxels(points: NDArray[np.float64], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    inverse = np.linalg.inv(affine)
    return (points * [-1, -1, 1]) @ inverse[:3, :3].T + inverse[:3, 3]


def _fill(region: NDArray[np.bool_], voxels: NDArray[np.float64], name: str, points: NDArray[np.float64]) -> None:
    k = round(float(voxels[:, 2].mean()))
    if not 0 <= k < region.shape[2] or abs(voxels[:, 2] - k).max() > OFF_PLANE:
        center = ", ".join(f"{v:.1f}" for v in points.mean(axis=0))
        raise ValueError(
            f"`names` must be regions drawn on slices of the series, got a contour of {name!r} around ({center}) mm "
            f"(LPS), where there is no slice."
        )
    low = np.ceil(voxels[:, :2].min(axis=0)).astype(int)
    high = np.floor(voxels[:, :2].max(axis=0)).astype(int)
    if (high < -1).any() or (low > region.shape[:2]).any():
        raise ValueError(f"`names` must be regions inside the pixels of the series, got {name!r} outside on slice {k}.")
    low, high = np.maximum(low, 0), np.minimum(high, np.array(region.shape[:2]) - 1)
    x, y = np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1), indexing="ij")
    inside = Polygon(voxels[:, :2]).contains_points(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(x.shape)
    if inside.any():
        region[low[0] : high[0] + 1, low[1] : high[1] + 1, k] ^= inside
    else:
        i, j = np.clip(np.rint(voxels[:, :2].mean(axis=0)).astype(int), 0, np.array(region.shape[:2]) - 1)
        region[i, j, k] = True
