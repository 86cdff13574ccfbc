"""Check that features were made from a slide, before anything is drawn on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .slide_file import SlideFile
from .tile_grid import NOMINAL

__all__ = ["slide_difference"]

UNLIKE = 1.75  # ratio of two resolutions that are not the same; a nominal one may be off by 1.67 (20x is up to 0.6 um)


def slide_difference(
    slide: SlideFile,
    coords: NDArray[np.float64],
    size: Sequence[int] | None = None,
    mpp: float | None = None,
    magnification: float | None = None,
    tile_size: float = 0.0,
) -> str:
    """Return why tiles can't be those of a slide, or an empty string if nothing speaks against it.

    Args:
        slide: the slide.
        coords: (N, 2), upper left corners (x, y) of the tiles in pixels of level 0.
        size: (width, height) of the slide that the features were made from, if they state it.
        mpp: its micrometers per pixel of level 0, if they state it.
        magnification: its magnification at level 0, if they state it; scanners differ, so it is compared roughly.
        tile_size: height and width of a tile in pixels of level 0.
    """
    if size is not None and tuple(size) != slide.size:
        return f"the features are of a slide of {_sides(size)} pixels, the slide has {_sides(slide.size)}"
    stated = mpp if mpp is not None or magnification is None else NOMINAL / magnification
    actual = slide.mpp if slide.mpp is not None or slide.magnification is None else NOMINAL / slide.magnification
    if stated is not None and actual is not None and not 1 / UNLIKE < stated / actual < UNLIKE:
        got = f"{mpp:.3g} um" if mpp is not None else f"magnification {magnification:g}"
        own = f"{slide.mpp:.3g} um" if slide.mpp is not None else f"magnification {slide.magnification:g}"
        return f"a pixel of the features' slide is of {got}, one of the slide of {own}"
    inside = ((coords >= 0) & (coords < slide.size)).all(axis=1)
    if not inside.all():
        return (
            f"{int((~inside).sum())} of {len(coords)} tiles begin outside of the slide of {_sides(slide.size)} pixels"
        )
    corner, sides = np.array(slide.bounds[:2]), np.array(slide.bounds[2:])
    shown = ((coords + tile_size > corner) & (coords < corner + sides)).all(axis=1)
    if 2 * shown.sum() < len(coords):  # a few may lie in the empty part of the plane
        return f"{int((~shown).sum())} of {len(coords)} tiles lie outside of the scanned part of the slide"
    return ""


def _sides(size: Sequence[int]) -> str:
    return f"{size[0]} x {size[1]}"
