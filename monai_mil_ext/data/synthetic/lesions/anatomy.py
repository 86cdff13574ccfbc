"""Anatomy without lesions, which scans are drawn of."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.utils import optional_dependency

__all__ = ["Anatomy", "read_anatomy"]

nib = optional_dependency("", "nibabel")
ndimage = optional_dependency("", "scipy.ndimage")

AIR = 0.3  # fraction of the brightness of white matter below which a voxel is not brain


class Anatomy(NamedTuple):
    """Anatomy without lesions.

    Attributes:
        volume: intensities (X, Y, Z) with 1 mm voxels, axes to the right, to the front and upward; the bright tissue,
            such as white matter in T1, is 1 and air 0.
        organ: voxels of the organ that has the lesions, (X, Y, Z); for a head, those of the brain.
    """

    volume: NDArray[np.float32]
    organ: NDArray[np.bool_]


def read_anatomy(path: str | os.PathLike[str]) -> Anatomy:
    """Read a head without skull, such as a template or a scan after brain extraction.

    The brain is the largest connected part that is not dark, without holes.

    Args:
        path: NIfTI file with voxels of 1 mm, in any orientation.

    Raises:
        ValueError: if the voxels are not 1 mm wide, or none is brighter than 0.

    Example:
        >>> import nibabel as nib
        >>> head = np.zeros((20, 20, 20), dtype=np.float32)
        >>> head[4:16, 4:16, 4:16] = 80.0
        >>> nib.save(nib.Nifti1Image(head, np.eye(4)), "head.nii.gz")
        >>> anatomy = read_anatomy("head.nii.gz")
        >>> anatomy.volume.max().item(), anatomy.organ.sum().item() == 12**3
        (1.0, True)
    """
    image = nib.as_closest_canonical(nib.load(path))
    spacing = image.header.get_zooms()[:3]
    if not np.allclose(spacing, 1.0):
        raise ValueError(f"`path` must have voxels of 1 mm, got {tuple(map(float, spacing))}.")
    volume = np.squeeze(np.asarray(image.dataobj)).astype(np.float32)
    if volume.ndim != 3 or not (volume > 0).any():
        raise ValueError(f"`path` must be a volume with positive voxels, got {volume.ndim}D, max {volume.max()}.")
    volume /= np.percentile(volume[volume > 0], 90)
    labels, _ = ndimage.label(ndimage.binary_closing(volume > AIR, iterations=3))
    organ = ndimage.binary_fill_holes(labels == np.bincount(labels[labels > 0]).argmax())
    return Anatomy(volume, organ)
