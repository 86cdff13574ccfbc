"""Tissue detection on slide thumbnails."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.utils import as_flag, optional_dependency

from .ink import find_ink
from .tissue_map import TissueLabel

__all__ = ["OtsuTissue"]

remove_small_objects = optional_dependency("wsi", "skimage.morphology", "remove_small_objects")
threshold_otsu = optional_dependency("wsi", "skimage.filters", "threshold_otsu")
ndimage = optional_dependency("", "scipy.ndimage")

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]
DARK = 45  # darker than any stain at the resolution of a thumbnail: pen, folds of glass, dust
BLACK, GRAY = 80, 0.16  # darker, and less saturated: thin strokes of a black pen
PADDING = 254.5  # brighter: painted by the scanner where it has not scanned
TINT, PALE_TINT = 0.1, 0.05  # largest saturation of glass; the smaller one if it may be pale tissue
BRIGHTEST = 0.1  # fraction of the pixels that are not stained strongly: glass rather than pale tissue
NOISE, PALE_NOISE = 4.0, 2.5  # times the median saturation of glass
NEAR = 8  # pixels from stained ones within which half of the saturation is enough
SMOOTH, GAPS = 3, 7  # pixels: width of the noise filter, and of the filter that closes gaps between nuclei
FILLED = 0.45  # fraction of stained neighbors; at a straight edge it is 3/7, so that edges do not move


@dataclass(frozen=True)
class OtsuTissue:
    """Tissue detector: pixels whose color differs from that of the glass.

    Otsu's threshold of the brightness separates strongly stained pixels from glass and pale tissue; of these, the
    brightest are glass, if they are nearly gray. Tissue is what is more saturated than the glass by ``min_saturation``,
    and by several times the noise of the glass; within 8 pixels of such tissue half of that is enough, so that pale
    stroma between nuclei is included. The measure is the difference of the optical densities of the color channels, so
    shading, dust and vignetting, which are gray, are not tissue. A thumbnail without glass is compared with white.

    Pen marks are excluded: green and turquoise ink, vivid blue and vivid red ink, and what is nearly black, each with
    its soft rim. H&E, hematoxylin alone, DAB, AEC, Fast Red, PAS and the blue of a trichrome are kept. Light green,
    methyl green and dense Alcian blue have the color of ink: set ``pens=False`` for these stains. A pale blue or pale
    red stroke that no vivid one touches has the color of hematoxylin or blood, and is kept.

    Args:
        min_saturation: smallest saturation of tissue, compared with glass, from 0 to 1.
        pens: whether to exclude pen marks; ``False`` if the stain itself has the color of ink.
        max_hole: largest area of a hole that is filled, as a fraction of the thumbnail.
        min_area: smallest area of a piece of tissue, as a fraction of the thumbnail.

    Raises:
        ValueError: when an option is not allowed.

    References:
        N. Otsu, A threshold selection method from gray-level histograms. IEEE Transactions on Systems, Man, and
        Cybernetics 9 (1979). A. C. Ruifrok and D. A. Johnston, Quantification of histochemical staining by color
        deconvolution. Analytical and Quantitative Cytology and Histology 23 (2001).

    Example:
        >>> thumbnail = np.full((40, 40, 3), 240, dtype=np.uint8)
        >>> thumbnail[10:30, 10:30] = 190, 110, 170
        >>> mask = OtsuTissue()(thumbnail)
        >>> bool(mask[20, 20]), bool(mask[20, 5])
        (True, False)
    """

    min_saturation: float = 0.04
    pens: bool = True
    max_hole: float = 1e-4
    min_area: float = 2e-5

    left_out: ClassVar[str] = "ink"
    option: ClassVar[str] = "--tissue#pens false"

    def __post_init__(self) -> None:
        for name in ("min_saturation", "max_hole", "min_area"):
            value = getattr(self, name)
            if isinstance(value, (bool, str)) or not 0 <= value <= 1:
                raise ValueError(f"`{name}` must be from 0 to 1, got {value!r}.")
        object.__setattr__(self, "pens", as_flag(self.pens, "pens"))  # a word of a command line

    def __call__(self, thumbnail: Pixels) -> Mask:
        """Return the tissue mask (h, w) of a thumbnail (h, w, 3)."""
        mask: Mask = self.labels(thumbnail) == TissueLabel.TISSUE
        return mask

    def labels(self, thumbnail: Pixels, mpp: float | None = None) -> Pixels:
        """Return the :py:class:`TissueLabel` (h, w) of each pixel of a thumbnail (h, w, 3); ``mpp`` is not used."""
        channels = np.moveaxis(thumbnail, -1, 0)  # in front, where NumPy compares them faster
        smooth = np.stack([ndimage.uniform_filter(c, SMOOTH, mode="nearest", output=np.float32) for c in channels])
        light = smooth.max(axis=0)
        dark = light < DARK
        # with the mixed pixels around them
        blank = ndimage.maximum_filter(dark, size=SMOOTH)
        white = smooth.min(axis=0) >= PADDING
        blank |= ndimage.maximum_filter(white, size=SMOOTH + 2)
        glass, noise = _glass(smooth[:, ~blank], bool(white.any()))
        density = np.log(glass[:, None, None] / np.maximum(smooth, 1))
        saturation = 1 - np.exp(density.min(axis=0) - density.max(axis=0))
        saturation[blank] = 0
        black = dark | ((light < BLACK) & (saturation < GRAY))
        ink = find_ink(density, saturation, black) if self.pens else np.zeros_like(dark)
        labels = np.where(ink, np.uint8(TissueLabel.INK), np.uint8(TissueLabel.GLASS))
        labels[self._clean(self._stained(saturation, noise) & ~ink)] = TissueLabel.TISSUE
        return labels

    def _stained(self, saturation: Floats, noise: float) -> Mask:
        """Return the stained pixels, the pale ones near them, and the gaps between them."""
        stained = saturation > max(self.min_saturation, NOISE * noise)
        pale = saturation > max(self.min_saturation / 2, PALE_NOISE * noise)
        stained |= pale & ndimage.maximum_filter(stained, size=2 * NEAR + 1)
        stained |= ndimage.uniform_filter(stained, size=GAPS, mode="nearest", output=np.float32) > FILLED
        return stained

    def _clean(self, mask: Mask) -> Mask:
        """Fill small holes and remove small pieces."""
        # remove_small_holes would also fill bays of the edge
        holes = ndimage.binary_fill_holes(mask) & ~mask
        filled = mask | (holes & ~remove_small_objects(holes, max_size=self.max_hole * mask.size))
        cleaned: Mask = remove_small_objects(filled, max_size=math.ceil(self.min_area * mask.size) - 1)
        return cleaned


def _glass(scanned: Floats, has_white: bool) -> tuple[Floats, float]:
    """Return the color of the glass among pixels (3, N), and the median of its saturation.

    White without noise stands for a glass that is not there. What is bluish beside white, or pink, may be pale tissue
    rather than glass.
    """
    light = scanned.mean(axis=0)
    white = np.full(3, 255, dtype=np.float32)
    if not light.size:
        return white, 0.0
    if light.min() < light.max():  # Otsu's method needs two values
        bright = light > threshold_otsu(light)
        scanned, light = scanned[:, bright], light[bright]
    scanned = scanned[:, light >= np.quantile(light, 1 - BRIGHTEST)]
    color = np.median(scanned, axis=1)
    tint = 1 - color.min() / color.max()
    may_be_tissue = color[1] == color.min() or (has_white and color[2] > color.min())
    if tint > (PALE_TINT if may_be_tissue else TINT):
        return white, 0.0
    ratio = scanned / color[:, None]
    return color, float(np.median(1 - ratio.min(axis=0) / ratio.max(axis=0)))
