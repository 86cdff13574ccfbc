"""Writer of volumes as NIfTI: scores as a file, gray values as bytes."""

from __future__ import annotations

import gzip
import os
from typing import Any

import numpy as np
from monai.data import MetaTensor

from monai_mil_ext.utils import atomic_path, optional_dependency

from .stack_grid import VolumeSlices, fill_grid

__all__ = ["nifti_bytes", "write_nifti"]

nib = optional_dependency("", "nibabel")


def write_nifti(path: str | os.PathLike[str], volume: MetaTensor, description: str = "") -> None:
    """Write a single-channel ``volume`` (1, X, Y, Z) and its affine (RAS mm) as NIfTI, atomically.

    The slices of an irregular series, whose metadata have ``slice_position``, are copied to a regular grid on which
    each has a voxel of its own. A slice fills half of the usual step, or of its own thickness, below and above its
    position; gaps are NaN, and so are the corners beside slices that are shifted against each other (gantry tilt).

    Args:
        path: the file, ending in ``.nii`` or ``.nii.gz``.
        volume: scores in the voxels of a scan.
        description: up to 79 characters for the header.

    Raises:
        ValueError: when ``volume`` has more than one channel or is not 3D.
    """
    if volume.ndim != 4 or volume.shape[0] != 1:
        raise ValueError(f"`volume` must have shape (1, X, Y, Z), got {tuple(volume.shape)}.")
    array, affine = volume[0].cpu().numpy().astype(np.float32), np.asarray(volume.affine, dtype=np.float64)
    slices = VolumeSlices.of(volume.meta, affine, array.shape)
    image = nib.Nifti1Image(*((array, affine) if slices is None else fill_grid(array, affine, slices)))
    image.header["descrip"] = description.encode()[:79]
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        nib.save(image, temporary)


def nifti_bytes(volume: np.ndarray[Any, Any], affine: np.ndarray[Any, Any]) -> bytes:
    """Return a volume (X, Y, Z) of bytes and its affine (RAS mm) as the content of a ``.nii.gz``.

    Example:
        >>> len(nifti_bytes(np.zeros((4, 4, 4), np.uint8), np.eye(4))) < 200
        True
    """
    image = nib.Nifti1Image(np.asarray(volume, np.uint8), affine)
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)
