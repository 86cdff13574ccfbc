"""Which parts of a slide are tissue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["OtsuTissue", "otsu_threshold", "tissue_share"]

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
DARK = 45  # no stain is so dark at the resolution of a thumbnail; felt tips, folds of glass and dust are
VIVID = 200  # saturation of a red felt tip, of 255
TINGE = 12  # by how much green must exceed red to be no stain, of 255
SMOOTH, RIM = 3, 3  # pixels: noise is averaged over the first, the soft rim of a pen stroke is the second


@dataclass(frozen=True)
class OtsuTissue:
    """Tissue is what is coloured: saturation above Otsu's threshold.

    A felt tip is left out before the threshold is sought, which it would move: what is greener than red (green and
    blue), very dark (black) or vividly red; a pale red stroke has the hue of blood and stays.
    Glass, however bright or grey, is not coloured; nothing below ``min_saturation`` is tissue, so that a slide without
    any has none. A picture without glass has no two classes to be split: where the paler one has on average more than
    twice ``min_saturation``, all above ``min_saturation`` is tissue.

    Args:
        min_saturation: lower bound of the threshold, from 0 to 1.
        pens: whether to leave felt tips out; False where the stain itself is blue or green.
        max_hole: holes up to this share of the picture are filled.
        min_area: pieces below this share of the picture are left out.

    Raises:
        ValueError: when an option is not from 0 to 1.

    References:
        N. Otsu, A threshold selection method from gray-level histograms. IEEE Transactions on Systems, Man, and
        Cybernetics 9 (1979).

    Example:
        >>> picture = np.full((40, 40, 3), 240, dtype=np.uint8)
        >>> picture[10:30, 10:30] = 190, 110, 170
        >>> mask = OtsuTissue()(picture)
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
        """Tissue (h, w) of a picture (h, w, 3)."""
        smooth = ndimage.uniform_filter(thumbnail, size=(SMOOTH, SMOOTH, 1), mode="nearest")
        high, low = smooth.max(axis=-1), smooth.min(axis=-1)
        saturation = ((high - low).astype(np.uint16) * 255 // np.maximum(high, 1)).astype(np.uint8)
        saturation[high < DARK] = 0
        possible = np.ones(saturation.shape, dtype=bool)
        if self.pens:
            possible = ~ndimage.binary_dilation(_pen(smooth, saturation), iterations=RIM)
        tissue = (saturation > self._threshold(saturation[possible])) & possible
        return _pieces(_filled(tissue, self.max_hole), self.min_area)

    def _threshold(self, saturation: Pixels) -> float:
        lowest = self.min_saturation * 255
        otsu = otsu_threshold(saturation)
        paler = saturation[saturation <= otsu]
        no_glass = len(paler) > 0 and paler.mean() > 2 * lowest
        return lowest if no_glass else max(otsu, lowest)


def otsu_threshold(values: Pixels) -> int:
    """The grey value that splits ``values`` into two classes of largest variance between them; the lower of equals.

    Example:
        >>> otsu_threshold(np.array([3, 3, 4, 90, 91], dtype=np.uint8))
        4
    """
    histogram = np.bincount(values.ravel(), minlength=256).astype(np.float64)
    below = histogram.cumsum()
    total, first = below[-1], (histogram * np.arange(256)).cumsum()
    above = total - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (first / below - (first[-1] - first) / above) ** 2
    return int(np.nan_to_num(between).argmax())


def tissue_share(mask: Mask, corners: NDArray[np.int64], edge: float, downsample: float) -> NDArray[np.float64]:
    """How much of each tile is tissue, exactly: the integral of the mask over the tile by its area.

    Args:
        mask: of a thumbnail.
        corners: (N, 2), (x, y) in pixels of level 0.
        edge: of a tile in pixels of level 0.
        downsample: pixels of level 0 to one of the thumbnail.
    """
    integral = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    integral[1:, 1:] = mask.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    low, high = corners / downsample, (corners + edge) / downsample
    area = sum(
        sign * _at(integral, x, y)
        for sign, x, y in (
            (1, high[:, 0], high[:, 1]),
            (-1, low[:, 0], high[:, 1]),
            (-1, high[:, 0], low[:, 1]),
            (1, low[:, 0], low[:, 1]),
        )
    )
    share: NDArray[np.float64] = (area / (edge / downsample) ** 2).clip(0, 1)
    return share


def _at(integral: NDArray[np.float64], x: Any, y: Any) -> Any:
    """The integral between its grid points, where it is bilinear, because a mask is constant within a pixel."""
    height, width = integral.shape
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    column, row = np.minimum(x.astype(np.int64), width - 2), np.minimum(y.astype(np.int64), height - 2)
    right, down = x - column, y - row
    upper = integral[row, column] * (1 - right) + integral[row, column + 1] * right
    lower = integral[row + 1, column] * (1 - right) + integral[row + 1, column + 1] * right
    return upper * (1 - down) + lower * down


def _pen(smooth: Pixels, saturation: Pixels) -> Mask:
    red, green, blue = (smooth[..., k].astype(np.int16) for k in range(3))
    felt: Mask = (green - red > TINGE) | (smooth.max(axis=-1) < DARK)
    return felt | ((saturation > VIVID) & (red > 2 * blue) & (red > 150))


def _filled(mask: Mask, share: float) -> Mask:
    labels, _ = ndimage.label(~mask)
    sizes = np.bincount(labels.ravel())
    small = sizes <= share * mask.size
    for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        small[side] = False  # open to the edge: no hole
    small[0] = False
    filled: Mask = mask | small[labels]
    return filled


def _pieces(mask: Mask, share: float) -> Mask:
    labels, _ = ndimage.label(mask)
    large = np.bincount(labels.ravel()) >= share * mask.size
    large[0] = False
    kept: Mask = large[labels]
    return kept
