"""Where the tiles of a slide lie."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.utils import check_choice, check_positive

from .slide_file import SlideFile, SlideFileError

__all__ = ["TileGrid"]

EDGES = ("drop", "pad", "shift")
NOMINAL = 10.0  # micrometres per pixel at a magnification of 1: what is called 20 has 0.5
ENLARGED = 1.25  # tiles may have so many pixels to one of level 0, along a side


@dataclass(frozen=True)
class TileGrid:
    r"""Tiles on a grid, at a resolution that is the same for every slide.

    At s pixels of level 0 to a pixel of a tile (:math:`s = mpp / mpp_0`, or :math:`magnification_0 / magnification`),
    a tile of t pixels covers :math:`ts` pixels of level 0, and with an overlap of o, tile i begins at
    :math:`\lfloor i (t - o) s + 1/2 \rfloor`. The rounding does not add up, and tiles are resampled from the rounded
    corner with s exactly.

    Args:
        tile_size: height and width of a tile as the encoder sees it.
        mpp: micrometres per pixel of a tile.
        magnification: of a tile, such as 20, instead of ``mpp``; with neither, tiles are pixels of level 0.
        overlap: pixels of a tile that its neighbour has too.
        edge: of tiles that reach beyond the right and lower edge of the slide: ``"drop"`` leaves them out, ``"pad"``
            fills them with white, ``"shift"`` moves them inwards, so that they overlap their neighbours more.

    Raises:
        ValueError: when an option is not allowed, or tiles would be enlarged by more than a quarter.
        SlideFileError: when the slide doesn't tell what is needed, or is smaller than a tile that may not be padded.

    Example:
        >>> TileGrid(224, mpp=0.5, overlap=32)
        TileGrid(tile_size=224, mpp=0.5, magnification=None, overlap=32, edge='drop')
    """

    tile_size: int = 256
    mpp: float | None = None
    magnification: float | None = None
    overlap: int = 0
    edge: str = "drop"

    def __post_init__(self) -> None:
        check_positive(tile_size=self.tile_size)
        check_choice("edge", self.edge, EDGES)
        if self.mpp is not None and self.magnification is not None:
            raise ValueError(f"`mpp` or `magnification` must be given, not both, got {self.mpp}, {self.magnification}.")
        for name in ("mpp", "magnification"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"`{name}` must be positive, got {value!r}.")
        if (
            isinstance(self.overlap, bool)
            or not isinstance(self.overlap, int)
            or not 0 <= self.overlap < self.tile_size
        ):
            raise ValueError(f"`overlap` must be an integer from 0 to `tile_size` - 1, got {self.overlap!r}.")

    def scale(self, slide: SlideFile) -> float:
        """Pixels of level 0 to a pixel of a tile."""
        if self.mpp is not None:
            scale = self.mpp / self._told(slide, "mpp")
        elif self.magnification is not None:
            scale = self._told(slide, "magnification") / self.magnification
        else:
            scale = 1.0
        if scale < 1 / ENLARGED:
            raise SlideFileError(
                f"`slide` must be at least about as fine as the tiles asked for, got {scale:.3g} of its pixels to one "
                f"of theirs in {slide.name!r}."
            )
        return scale

    def corners(self, slide: SlideFile) -> NDArray[np.int64]:
        """Upper left corners (N, 2), (x, y) in pixels of level 0, row by row."""
        scale = self.scale(slide)
        columns, rows = (self._starts(side, scale) for side in slide.size)
        if not len(columns) or not len(rows):
            raise SlideFileError(
                f"`slide` must be at least as large as a tile, or `edge` 'pad', got {slide.size} for "
                f"{self.tile_size * scale:g} pixels of level 0 in {slide.name!r}."
            )
        y, x = np.meshgrid(rows, columns, indexing="ij")
        return np.stack([x.ravel(), y.ravel()], axis=1)

    def describe(self, bag: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """What TRIDENT writes beside the arrays of a bag, from the keys that ``TileBagd`` gives to it.

        Magnifications stand for resolutions, of which 0.5 micrometres a pixel is called 20; where neither is known
        they are left out.
        """
        edge = float(bag["tile_size"])
        width, height = (int(side) for side in bag["spatial_shape"])
        words: dict[str, Any] = {
            "patch_size": self.tile_size,
            "patch_size_level0": round(edge),
            "overlap": self.overlap,
        }
        words |= {"level0_width": width, "level0_height": height}
        mpp = bag.get("mpp")
        target = NOMINAL / mpp if self.magnification is None and mpp else self.magnification
        if target is not None:
            level0 = target * edge / self.tile_size
            words |= {"target_magnification": _plain(target), "level0_magnification": _plain(level0)}
        return {"features": {}, "coords": words}

    def _starts(self, side: int, scale: float) -> NDArray[np.int64]:
        """Where tiles begin along an axis of ``side`` pixels."""
        tile, step = self.tile_size * scale, (self.tile_size - self.overlap) * scale
        count = 1 + math.ceil(max(0.0, side - tile) / step)
        starts = np.floor(np.arange(count) * step + 0.5).astype(np.int64)
        if self.edge == "pad":
            return starts[starts < side]
        last = math.floor(side - tile + 0.5)  # half a pixel beyond the edge is a matter of rounding
        if self.edge == "drop":
            return starts[starts <= last]
        return np.unique(np.minimum(starts, last)) if last >= 0 else starts[:0]

    def _told(self, slide: SlideFile, name: str) -> float:
        value: Any = getattr(slide, name)
        if value is None:
            raise SlideFileError(
                f"`slide` must tell its {name} (what is missing can be given as `slide_mpp`, for a grid with `mpp`), "
                f"got none in {slide.name!r}."
            )
        return float(value)


def _plain(number: float) -> int | float:
    """An integer where it is one, as TRIDENT's are."""
    return round(number) if abs(number - round(number)) < 1e-6 else number
