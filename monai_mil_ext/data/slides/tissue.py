"""Tissue detection on slide thumbnails."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.utils import optional_dependency

__all__ = ["OtsuTissue", "tissue_fraction"]

remove_small_objects = optional_dependency("wsi", "skimage.morphology", "remove_small_objects")
threshold_otsu = optional_dependency("wsi", "skimage.filters", "threshold_otsu")
ndimage = optional_dependency("", "scipy.ndimage")

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
DARK = 45  # darker than any stain at the resolution of a thumbnail: pen, folds of glass, dust
VIVID = 200  # saturation of a red pen, of 255
TINGE = 12  # excess of green over red that no stain has, of 255
SMOOTH, RIM = 3, 3  # pixels: width of the noise filter, and of the soft rim of a pen stroke


@dataclass(frozen=True)
class OtsuTissue:
    """Tissue detector: pixels whose saturation is above Otsu's threshold.

    Pen marks are excluded before the threshold is computed: pixels that are greener than red (green and blue pens),
    very dark (black) or vividly red; a pale red stroke has the hue of blood and is kept. Glass is unsaturated, whether
    bright or gray, and nothing below ``min_saturation`` is tissue, so that an empty slide has none. A thumbnail without
    glass does not have two classes to separate: if the mean saturation of the paler class exceeds twice
    ``min_saturation``, every pixel above ``min_saturation`` is tissue.

    Args:
        min_saturation: lower bound of the threshold, from 0 to 1.
        pens: whether to exclude pen marks; ``False`` if the stain itself is blue or green.
        max_hole: largest area of a hole that is filled, as a fraction of the thumbnail.
        min_area: smallest area of a piece of tissue, as a fraction of the thumbnail.

    Raises:
        ValueError: when an option is not from 0 to 1.

    References:
        N. Otsu, A threshold selection method from gray-level histograms. IEEE Transactions on Systems, Man, and
        Cybernetics 9 (1979).

    Example:
        >>> thumbnail = np.full((40, 40, 3), 240, dtype=np.uint8)
        >>> thumbnail[10:30, 10:30] = 190, 110, 170
        >>> mask = OtsuTissue()(thumbnail)
        >>> bool(mask[20, 20]), bool(mask[20, 5])
        (True, False)
    """

    min_saturation: float = 0.06
    pens: bool = True
    max_hole: float = 1e-4
    min_area: float = 2e-5

    def __post_init__(self) -> None:
        for name in ("min_saturation", "max_hole", "min_area"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must be from 0 to 1, got {getattr(self, name)!r}.")

    def __call__(self, thumbnail: Pixels) -> Mask:
        """Return the tissue mask (h, w) of a thumbnail (h, w, 3)."""
        smooth = ndimage.uniform_filter(thumbnail, size=(SMOOTH, SMOOTH, 1), mode="nearest")
        high, low = smooth.max(axis=-1), smooth.min(axis=-1)
        saturation = ((high - low).astype(np.uint16) * 255 // np.maximum(high, 1)).astype(np.uint8)
        saturation[high < DARK] = 0
        candidates = np.ones(saturation.shape, dtype=bool)
        if self.pens:
            candidates = ~ndimage.binary_dilation(_pen(smooth, saturation), iterations=RIM)
        tissue = (saturation > self._threshold(saturation[candidates])) & candidates
        return self._clean(tissue)

    def _threshold(self, saturation: Pixels) -> float:
        lowest = self.min_saturation * 255
        if not saturation.size or saturation.min() == saturation.max():  # Otsu's method needs two values
            return lowest
        otsu = float(threshold_otsu(saturation))
        paler = saturation[saturation <= otsu]
        no_glass = len(paler) > 0 and paler.mean() > 2 * lowest
        return lowest if no_glass else max(otsu, lowest)

    def _clean(self, mask: Mask) -> Mask:
        """Fill small holes and remove small pieces."""
        # remove_small_holes would also fill bays of the edge
        holes = ndimage.binary_fill_holes(mask) & ~mask
        filled = mask | (holes & ~remove_small_objects(holes, max_size=self.max_hole * mask.size))
        cleaned: Mask = remove_small_objects(filled, max_size=math.ceil(self.min_area * mask.size) - 1)
        return cleaned


def tissue_fraction(mask: Mask, corners: NDArray[np.int64], edge: float, downsample: float) -> NDArray[np.float64]:
    """Compute the fraction of each tile that is tissue, exactly, by integrating the mask over the tile.

    Args:
        mask: tissue mask of a thumbnail.
        corners: (N, 2), (x, y) in pixels of level 0.
        edge: side of a tile in pixels of level 0.
        downsample: pixels of level 0 per pixel of the thumbnail, along a side.
    """
    integral = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    integral[1:, 1:] = mask.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    low, high = corners / downsample, (corners + edge) / downsample
    area = sum(
        sign * _interpolate(integral, x, y)
        for sign, x, y in (
            (1, high[:, 0], high[:, 1]),
            (-1, low[:, 0], high[:, 1]),
            (-1, high[:, 0], low[:, 1]),
            (1, low[:, 0], low[:, 1]),
        )
    )
    fraction: NDArray[np.float64] = (area / (edge / downsample) ** 2).clip(0, 1)
    return fraction


def _interpolate(integral: NDArray[np.float64], x: Any, y: Any) -> Any:
    """Interpolate the integral bilinearly, which is exact because the mask is constant within a pixel."""
    height, width = integral.shape
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    column, row = np.minimum(x.astype(np.int64), width - 2), np.minimum(y.astype(np.int64), height - 2)
    right, down = x - column, y - row
    upper = integral[row, column] * (1 - right) + integral[row, column + 1] * right
    lower = integral[row + 1, column] * (1 - right) + integral[row + 1, column + 1] * right
    return upper * (1 - down) + lower * down


def _pen(smooth: Pixels, saturation: Pixels) -> Mask:
    red, green, blue = (smooth[..., k].astype(np.int16) for k in range(3))
    pen: Mask = (green - red > TINGE) | (smooth.max(axis=-1) < DARK)
    return pen | ((saturation > VIVID) & (red > 2 * blue) & (red > 150))
