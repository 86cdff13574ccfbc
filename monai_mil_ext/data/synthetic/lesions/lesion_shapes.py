"""Lesions and distractors that are added to an image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.utils import optional_dependency

from .lesion_options import LesionOptions
from .random_fields import Rng, random_field

__all__ = ["add_distractors", "add_lesion"]

ndimage = optional_dependency("", "scipy.ndimage")

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]
TRIES = 200


def add_distractors(rng: Rng, image: Image, organ: Mask, spacing: Spacing, options: LesionOptions) -> None:
    """Add bright or dark spots of some mm on one or two slices, like vessels."""
    inside = np.argwhere(organ)
    for _ in range(rng.integers(options.distractors[0], options.distractors[1] + 1)):
        center = inside[rng.integers(len(inside))]
        radii = np.array([*rng.uniform(2.5, 6.0, 2), rng.uniform(0.6, 1.4) * spacing[2]])
        strength = rng.choice((-1, 1)) * rng.uniform(0.2, 0.5)
        image += np.float32(strength) * (1 - _distance(organ.shape, center, radii / np.array(spacing))).clip(0, 0.5) * 2
    image.clip(0, None, out=image)


def add_lesion(
    rng: Rng,
    image: Image,
    mask: NDArray[np.uint8],
    organ: Mask,
    number: int,
    spacing: Spacing,
    options: LesionOptions,
) -> None:
    """Add one lesion: an irregular ellipsoid with texture and a soft edge, bright or dark."""
    sign, contrast = rng.choice((-1, 1)), rng.uniform(*options.contrast)
    for attempt in range(TRIES):
        shape = _draw_shape(rng, organ, spacing, options, shorter=1 - 0.7 * attempt / TRIES)
        slices = np.flatnonzero(shape.any((0, 1)))
        used = mask[:, :, max(slices[0] - 1, 0) : slices[-1] + 2].any() if len(slices) else True
        if not used and len(slices) == slices[-1] - slices[0] + 1:
            break
    else:
        raise ValueError(f"`num_lesions` must fit into the scan, got no place for lesion {number}.")
    soft = ndimage.gaussian_filter(shape.astype(np.float32), (0.7, 0.7, 0.0))
    texture = 1 + random_field(rng, image.shape, (20, 20, 10), options.texture)
    image += np.float32(sign * contrast) * soft * texture
    image.clip(0, None, out=image)
    mask[shape] = number


def _draw_shape(rng: Rng, organ: Mask, spacing: Spacing, options: LesionOptions, shorter: float) -> Mask:
    """Return the voxels of a lesion at a random place of the organ, every level being as likely as any other.

    Where others leave little room, later tries are ``shorter`` across the slices.
    """
    step = np.array(spacing)
    radii = np.array([*rng.uniform(*options.radius_mm, 2), shorter * rng.uniform(*options.half_length_mm)]) / step
    levels = np.flatnonzero(organ.any((0, 1)))
    level = int(rng.integers(levels[0], levels[-1] + 1))
    inside = np.argwhere(ndimage.binary_erosion(organ[:, :, level], iterations=3))
    edge = random_field(rng, organ.shape, (12, 12, 6), 0.18)
    empty = np.zeros_like(organ)
    if not len(inside):
        return empty
    center = np.array([*inside[rng.integers(len(inside))], level])
    shape: Mask = (_distance(organ.shape, center, radii) + edge < 1) & organ
    shape[:, :, shape.sum((0, 1)) * step[0] * step[1] < options.min_area_mm2] = False
    return shape


def _distance(shape: tuple[int, ...], center: NDArray[np.int64], radii: NDArray[np.float64]) -> Image:
    """Return the distance of each voxel from a center, in radii."""
    axes = [((np.arange(size) - c) / r) ** 2 for size, c, r in zip(shape, center, radii, strict=True)]
    distance: Image = np.sqrt(axes[0][:, None, None] + axes[1][:, None] + axes[2]).astype(np.float32)
    return distance
