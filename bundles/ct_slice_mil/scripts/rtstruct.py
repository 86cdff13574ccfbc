"""Contours of an RTSTRUCT as a voxel mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from matplotlib.path import Path as Polygon

__all__ = ["rtstruct_mask"]


def rtstruct_mask(file: Path, roi: str, affine: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Fill the closed planar contours of one region; where contours overlap, the inner one is a hole (XOR).

    Args:
        file: the RTSTRUCT.
        roi: name of the region.
        affine: (4, 4), voxel index to RAS mm, of axial slices along the third axis.
        shape: of the voxel array.

    Returns:
        uint8 mask of ``shape``.

    Raises:
        ValueError: when the region isn't there or a contour lies outside the volume.
    """
    plan = pydicom.dcmread(file)
    numbers = {r.ROIName: r.ROINumber for r in plan.StructureSetROISequence}
    if roi not in numbers:
        raise ValueError(f"`roi` must be one of {sorted(numbers)}, got {roi!r}.")
    contours = next(c for c in plan.ROIContourSequence if c.ReferencedROINumber == numbers[roi]).ContourSequence
    to_voxel = np.linalg.inv(affine)
    x, y = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    centres = np.stack([x.ravel(), y.ravel()], axis=1)
    mask = np.zeros(shape, dtype=bool)
    for contour in contours:
        lps = np.asarray(contour.ContourData, dtype=float).reshape(-1, 3)
        voxels = (lps * [-1, -1, 1]) @ to_voxel[:3, :3].T + to_voxel[:3, 3]
        k = round(float(voxels[:, 2].mean()))
        if not 0 <= k < shape[2]:
            raise ValueError(f"a contour of {roi!r} must lie in slices 0 to {shape[2] - 1}, got slice {k}.")
        mask[:, :, k] ^= Polygon(voxels[:, :2]).contains_points(centres).reshape(shape[:2])
    return mask.astype(np.uint8)
