"""Drawing of one scan: a deformed head, lesions with their exact mask, and what a scanner does to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .anatomies import Anatomy
from .fields import Rng, random_affine, smooth_field

__all__ = ["DrawingOptions", "Scan", "draw_scan"]

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Range = tuple[float, float]
Spacing = tuple[float, float, float]
TRIES = 200


@dataclass(frozen=True)
class DrawingOptions:
    """Options of the drawing; intensities are fractions of that of white matter.

    Args:
        size: pixels of a slice, in both directions.
        pixel_mm: size of a pixel.
        slice_mm: range of the distance of slices, uniform.
        contrast: range of the brightness that a lesion adds or, every other time, takes away.
        radius_mm: range of the radii of a lesion in the plane of the slices.
        half_length_mm: range of the radius of a lesion across the slices.
        texture: sd of the brightness within a lesion, as a fraction of its contrast.
        distractors: least and largest number of short bright or dark spots, in scans of both classes.
        noise: range of the sd of the noise.
        bias: sd of the logarithm of the bias field.
        gamma: range of the exponent that changes the contrast of tissues.
        min_area_mm2: smallest area of a lesion on a slice; where it has less, it is left out.
    """

    size: int = 112
    pixel_mm: float = 1.75
    slice_mm: Range = (4.0, 5.5)
    contrast: Range = (0.6, 1.0)
    radius_mm: Range = (9.0, 18.0)
    half_length_mm: Range = (12.0, 30.0)
    texture: float = 0.12
    distractors: tuple[int, int] = (0, 4)
    noise: Range = (0.02, 0.04)
    bias: float = 0.12
    gamma: Range = (0.75, 1.35)
    min_area_mm2: float = 50.0


class Scan(NamedTuple):
    """Scan with the exact mask of its lesions.

    Attributes:
        image: intensities (X, Y, Z), in the arbitrary unit of a scanner.
        mask: number of the lesion at each voxel, from 1 on, 0 elsewhere, (X, Y, Z).
        spacing: size of a voxel in mm.
    """

    image: NDArray[np.int16]
    mask: NDArray[np.uint8]
    spacing: Spacing


def draw_scan(anatomy: Anatomy, seed: Sequence[int], num_lesions: int, options: DrawingOptions) -> Scan:
    """Draw a scan.

    Head, scanner and lesions have random numbers of their own: scans of one seed that differ in the number of lesions
    show the same head, from the same scanner, with the same noise.

    Args:
        anatomy: head without lesions.
        seed: seed of the random draw: a scan depends on nothing else but ``anatomy`` and ``options``.
        num_lesions: number of lesions, whose slices neither overlap nor touch.
        options: options of the drawing.

    Raises:
        ValueError: if the lesions have no place.
    """
    head, scanner, lesions = (np.random.default_rng([*seed, part]) for part in range(3))
    slice_mm = float(head.uniform(*options.slice_mm))
    spacing = (options.pixel_mm, options.pixel_mm, slice_mm)
    image, brain = _deform(head, anatomy, slice_mm, options)
    image = image ** np.float32(head.uniform(*options.gamma))
    _add_distractors(head, image, brain, spacing, options)
    mask = np.zeros(image.shape, np.uint8)
    for number in range(1, num_lesions + 1):
        _add_lesion(lesions, image, mask, brain, number, spacing, options)
    return Scan(_acquire(scanner, image, options), mask, spacing)


def _deform(rng: Rng, anatomy: Anatomy, slice_mm: float, options: DrawingOptions) -> tuple[Image, Mask]:
    """Return slices of the head and of the brain after an affine and an elastic deformation."""
    levels = np.flatnonzero(anatomy.brain.any((0, 1)))
    low, high = levels[0] - rng.uniform(0, 15), min(levels[-1] + rng.uniform(-5, 12), anatomy.brain.shape[2] - 1)
    plane = (np.arange(options.size) - (options.size - 1) / 2) * options.pixel_mm
    level = np.arange(low, high, slice_mm) - (low + high) / 2
    grid = np.stack(np.meshgrid(plane, plane, level, indexing="ij")).astype(np.float32)
    middle = [
        (axis[0] + axis[-1]) / 2 for axis in (np.flatnonzero(anatomy.brain.any(others)) for others in ((1, 2), (0, 2)))
    ]
    matrix = random_affine(rng, 5.0, (0.9, 1.1)).astype(np.float32)
    place = np.tensordot(matrix, grid, 1) + np.array([*middle, (low + high) / 2], np.float32)[:, None, None, None]
    place += np.stack([smooth_field(rng, grid.shape[1:], (5, 5, 4), 3.0) for _ in range(3)])
    image = ndimage.map_coordinates(anatomy.volume, place, order=1)
    brain = ndimage.map_coordinates(anatomy.brain.view(np.uint8), place, order=0).astype(bool)
    return image.clip(0, None), brain


def _add_distractors(rng: Rng, image: Image, brain: Mask, spacing: Spacing, options: DrawingOptions) -> None:
    """Add bright or dark spots of some mm on one or two slices, like vessels."""
    inside = np.argwhere(brain)
    for _ in range(rng.integers(options.distractors[0], options.distractors[1] + 1)):
        center = inside[rng.integers(len(inside))]
        radii = np.array([*rng.uniform(2.5, 6.0, 2), rng.uniform(0.6, 1.4) * spacing[2]])
        strength = rng.choice((-1, 1)) * rng.uniform(0.2, 0.5)
        image += np.float32(strength) * (1 - _distance(brain.shape, center, radii / np.array(spacing))).clip(0, 0.5) * 2
    image.clip(0, None, out=image)


def _add_lesion(
    rng: Rng,
    image: Image,
    mask: NDArray[np.uint8],
    brain: Mask,
    number: int,
    spacing: Spacing,
    options: DrawingOptions,
) -> None:
    """Add one lesion: an irregular ellipsoid with texture and a soft edge, bright or dark."""
    sign, contrast = rng.choice((-1, 1)), rng.uniform(*options.contrast)
    for attempt in range(TRIES):
        shape = _draw_shape(rng, brain, spacing, options, shorter=1 - 0.7 * attempt / TRIES)
        slices = np.flatnonzero(shape.any((0, 1)))
        used = mask[:, :, max(slices[0] - 1, 0) : slices[-1] + 2].any() if len(slices) else True
        if not used and len(slices) == slices[-1] - slices[0] + 1:
            break
    else:
        raise ValueError(f"`num_lesions` must fit into the scan, got no place for lesion {number}.")
    soft = ndimage.gaussian_filter(shape.astype(np.float32), (0.7, 0.7, 0.0))
    texture = 1 + smooth_field(rng, image.shape, (20, 20, 10), options.texture)
    image += np.float32(sign * contrast) * soft * texture
    image.clip(0, None, out=image)
    mask[shape] = number


def _draw_shape(rng: Rng, brain: Mask, spacing: Spacing, options: DrawingOptions, shorter: float) -> Mask:
    """Return the voxels of a lesion at a random place of the brain, every level being as likely as any other.

    Where others leave little room, later tries are ``shorter`` across the slices.
    """
    step = np.array(spacing)
    radii = np.array([*rng.uniform(*options.radius_mm, 2), shorter * rng.uniform(*options.half_length_mm)]) / step
    levels = np.flatnonzero(brain.any((0, 1)))
    level = int(rng.integers(levels[0], levels[-1] + 1))
    inside = np.argwhere(ndimage.binary_erosion(brain[:, :, level], iterations=3))
    edge = smooth_field(rng, brain.shape, (12, 12, 6), 0.18)
    empty = np.zeros_like(brain)
    if not len(inside):
        return empty
    center = np.array([*inside[rng.integers(len(inside))], level])
    shape: Mask = (_distance(brain.shape, center, radii) + edge < 1) & brain
    shape[:, :, shape.sum((0, 1)) * step[0] * step[1] < options.min_area_mm2] = False
    return shape


def _distance(shape: tuple[int, ...], center: NDArray[np.int64], radii: NDArray[np.float64]) -> Image:
    """Return the distance of each voxel from a center, in radii."""
    axes = [((np.arange(size) - c) / r) ** 2 for size, c, r in zip(shape, center, radii, strict=True)]
    distance: Image = np.sqrt(axes[0][:, None, None] + axes[1][:, None] + axes[2]).astype(np.float32)
    return distance


def _acquire(rng: Rng, image: Image, options: DrawingOptions) -> NDArray[np.int16]:
    """Return what a scanner makes of an image: bias field, gain of each slice, Rician noise, arbitrary unit."""
    bias = np.exp(smooth_field(rng, image.shape, (3, 3, 3), options.bias))
    gain = rng.normal(1.0, 0.02, image.shape[2]).astype(np.float32)
    sd = rng.uniform(*options.noise)
    real, imaginary = (rng.normal(0.0, sd, image.shape).astype(np.float32) for _ in range(2))
    magnitude = np.hypot(image * bias * gain + real, imaginary) * rng.uniform(300, 1200)
    return magnitude.round().clip(0, 32767).astype(np.int16)
