"""Drawing of one scan: a deformed anatomy, lesions with their exact mask, and what a scanner does to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.utils import check_count, optional_dependency

from .anatomy import Anatomy
from .lesion_options import LesionOptions
from .lesion_shapes import Image, Mask, Spacing, add_distractors, add_lesion
from .random_fields import Rng, random_affine, random_field

__all__ = ["LesionScan", "draw_lesion_scan"]

ndimage = optional_dependency("", "scipy.ndimage")


class LesionScan(NamedTuple):
    """Scan with the exact mask of its lesions.

    Attributes:
        image: intensities (X, Y, Z), in the arbitrary unit of a scanner.
        mask: number of the lesion at each voxel, from 1 on, 0 elsewhere, (X, Y, Z).
        spacing: size of a voxel in mm.
    """

    image: NDArray[np.int16]
    mask: NDArray[np.uint8]
    spacing: Spacing


def draw_lesion_scan(
    anatomy: Anatomy, seed: int | Sequence[int], num_lesions: int, options: LesionOptions | None = None
) -> LesionScan:
    """Draw a scan: a deformed copy of an anatomy, its lesions, and what a scanner makes of both.

    Anatomy, scanner and lesions have random numbers of their own: scans of one seed that differ in the number of
    lesions show the same head, from the same scanner, with the same noise.

    Args:
        anatomy: anatomy without lesions.
        seed: one number or several, such as those of the cohort and of the scan; a scan depends on nothing else but
            ``anatomy``, ``num_lesions`` and ``options``.
        num_lesions: number of lesions, whose slices neither overlap nor touch.
        options: options of the drawing; ``None`` takes the defaults.

    Raises:
        ValueError: if the anatomy has no organ, or the lesions have no place.

    Example:
        >>> x, y, z = np.ogrid[-1.1:1.1:140j, -1.1:1.1:170j, -1.1:1.1:130j]
        >>> ball = x**2 + y**2 + z**2 < 1
        >>> scan = draw_lesion_scan(Anatomy(ball.astype(np.float32), ball), seed=0, num_lesions=2)
        >>> scan.image.shape == scan.mask.shape, np.unique(scan.mask).tolist()
        (True, [0, 1, 2])
    """
    check_count(num_lesions=num_lesions)
    if anatomy.organ.shape != anatomy.volume.shape or not anatomy.organ.any():
        raise ValueError(f"`anatomy` must have an organ in its volume, got {anatomy.organ.sum()} voxels of it.")
    options = options or LesionOptions()
    seeds = [seed] if isinstance(seed, int) else seed
    body, scanner, lesions = (np.random.default_rng([*seeds, part]) for part in range(3))
    slice_mm = float(body.uniform(*options.slice_mm))
    spacing = (options.pixel_mm, options.pixel_mm, slice_mm)
    image, organ = _deform(body, anatomy, slice_mm, options)
    image = image ** np.float32(body.uniform(*options.gamma))
    add_distractors(body, image, organ, spacing, options)
    mask = np.zeros(image.shape, np.uint8)
    for number in range(1, num_lesions + 1):
        add_lesion(lesions, image, mask, organ, number, spacing, options)
    return LesionScan(_acquire(scanner, image, options), mask, spacing)


def _deform(rng: Rng, anatomy: Anatomy, slice_mm: float, options: LesionOptions) -> tuple[Image, Mask]:
    """Return slices of the volume and of the organ after an affine and an elastic deformation."""
    levels = np.flatnonzero(anatomy.organ.any((0, 1)))
    low, high = levels[0] - rng.uniform(0, 15), min(levels[-1] + rng.uniform(-5, 12), anatomy.organ.shape[2] - 1)
    plane = (np.arange(options.size) - (options.size - 1) / 2) * options.pixel_mm
    level = np.arange(low, high, slice_mm) - (low + high) / 2
    grid = np.stack(np.meshgrid(plane, plane, level, indexing="ij")).astype(np.float32)
    middle = [
        (axis[0] + axis[-1]) / 2 for axis in (np.flatnonzero(anatomy.organ.any(others)) for others in ((1, 2), (0, 2)))
    ]
    matrix = random_affine(rng, 5.0, (0.9, 1.1)).astype(np.float32)
    place = np.tensordot(matrix, grid, 1) + np.array([*middle, (low + high) / 2], np.float32)[:, None, None, None]
    place += np.stack([random_field(rng, grid.shape[1:], (5, 5, 4), 3.0) for _ in range(3)])
    image = ndimage.map_coordinates(anatomy.volume, place, order=1)
    organ = ndimage.map_coordinates(anatomy.organ.view(np.uint8), place, order=0).astype(bool)
    return image.clip(0, None), organ


def _acquire(rng: Rng, image: Image, options: LesionOptions) -> NDArray[np.int16]:
    """Return what a scanner makes of an image: bias field, gain of each slice, Rician noise, arbitrary unit."""
    bias = np.exp(random_field(rng, image.shape, (3, 3, 3), options.bias))
    gain = rng.normal(1.0, 0.02, image.shape[2:]).astype(np.float32)
    sd = rng.uniform(*options.noise)
    real, imaginary = (rng.normal(0.0, sd, image.shape).astype(np.float32) for _ in range(2))
    magnitude = np.hypot(image * bias * gain + real, imaginary) * rng.uniform(300, 1200)
    voxels: NDArray[np.int16] = magnitude.round().clip(0, 32767).astype(np.int16)
    return voxels
