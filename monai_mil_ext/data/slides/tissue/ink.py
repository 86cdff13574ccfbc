"""Ink of felt-tip pens on slide thumbnails, by its color."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.utils import optional_dependency

__all__ = ["find_ink"]

ndimage = optional_dependency("", "scipy.ndimage")

Mask = NDArray[np.bool_]
# Optical densities of red, green and blue tell ink from stains at any thickness. Of the stains of skimage.color, only
# light green and methyl green absorb green so little, and only those of blue collagen absorb blue so little.
TURQUOISE = 0.7  # green by red at most, and blue by green at least; hematoxylin: from 0.75, and up to 0.65
BLUE = 0.3  # blue by red at most; hematoxylin: from 0.35
RED = 0.3, 0.6  # red by green at most, and blue by green at least; AEC: 0.4, eosin: blue by green up to 0.5
DIFFERENCE = 0.08  # smallest difference of the densities of red and green, beyond noise
VIVID_BLUE, VIVID_RED = 0.62, 0.78  # saturation of a pen; collagen and blood have less
FAINT = 0.04  # smallest saturation of a soft rim
GROWTH, RIM = 8, 3  # pixels: width of a rim of the color of its stroke, and of one of any color


def find_ink(density: NDArray[np.float32], saturation: NDArray[np.float32], black: Mask) -> Mask:
    """Find the ink of green, turquoise, blue, red and black pens, with its soft rims.

    Args:
        density: optical density (3, h, w), relative to glass.
        saturation: saturation (h, w) from 0 to 1, relative to glass.
        black: pixels (h, w) that are nearly black.
    """
    red, green, blue = density
    turquoise = (green < TURQUOISE * red) & (blue > TURQUOISE * green) & (red - green > DIFFERENCE)
    bluish = blue < BLUE * red
    reddish = (red < RED[0] * green) & (blue > RED[1] * green)
    vivid = (bluish & (saturation > VIVID_BLUE)) | (reddish & (saturation > VIVID_RED))
    ink = turquoise | vivid | black
    if not ink.any():
        return ink
    rim = ink | ((bluish | reddish) & (saturation > FAINT))
    grown = ndimage.binary_dilation(ink, iterations=GROWTH, mask=rim)
    dilated: Mask = ndimage.binary_dilation(grown, iterations=RIM)
    return dilated
