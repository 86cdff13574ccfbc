"""Grid of the tiles of a slide."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.utils import check_choice, check_count, check_positive, check_positive_number

from .slide_file import SlideFile
from .slide_resolution import NOMINAL

__all__ = ["TileGrid"]

EDGES = ("drop", "pad", "shift")
MAX_UPSAMPLING = 1.25  # pixels of a tile per pixel of level 0, along a side


@dataclass(frozen=True)
class TileGrid:
    r"""Regular grid of tiles, at the same resolution for every slide.

    At s pixels of level 0 per pixel of a tile (:math:`s = mpp / mpp_0`, or :math:`magnification_0 / magnification`), a
    tile of t pixels covers :math:`ts` pixels of level 0, and with an overlap of o, tile i starts at
    :math:`\lfloor i (t - o) s + 1/2 \rfloor`, counted from the corner of the bounds of the slide, its scanned part.
    Rounding errors do not accumulate, and tiles are resampled from the rounded corner with exactly s.

    Args:
        tile_size: height and width of a tile as the encoder sees it.
        mpp: micrometers per pixel of a tile.
        magnification: magnification of a tile, such as 20, instead of ``mpp``; with neither, tiles have the resolution
            of level 0.
        overlap: number of pixels that a tile shares with its neighbor.
        edge: treatment of tiles that extend beyond the right or lower edge of the slide: ``"drop"`` omits them,
            ``"pad"`` fills them with white, ``"shift"`` moves them inwards, so that they overlap their neighbors more.

    Raises:
        ValueError: when an option is not allowed, or tiles would be upsampled by more than a quarter.
        SlideFileError: when the slide lacks the required resolution, or is smaller than a tile that may not be padded.

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
            if value is not None:
                check_positive_number(**{name: value})
        check_count(overlap=self.overlap)
        if self.overlap >= self.tile_size:
            raise ValueError(f"`overlap` must be less than `tile_size`, got {self.overlap}.")

    def scale(self, slide: SlideFile) -> float:
        """Return the number of pixels of level 0 per pixel of a tile, along a side."""
        if self.mpp is not None:
            scale = self.mpp / self._required_value(slide, "mpp")
        elif self.magnification is not None:
            scale = self._required_value(slide, "magnification") / self.magnification
        else:
            scale = 1.0
        if scale < 1 / MAX_UPSAMPLING:
            raise slide.error(
                f"`slide` must be about as fine as the requested tiles, got {scale:.3g} of its pixels per pixel "
                "of a tile."
            )
        return scale

    def corners(self, slide: SlideFile) -> NDArray[np.int64]:
        """Return the upper left corners (N, 2) of the tiles, (x, y) in pixels of level 0, row by row."""
        scale = self.scale(slide)
        columns, rows = (self._starts(side, scale) for side in slide.bounds[2:])
        if not len(columns) or not len(rows):
            raise slide.error(
                f"`slide` must be at least as large as a tile, or `edge` 'pad', got {slide.bounds[2:]} for "
                f"{self.tile_size * scale:g} pixels of level 0."
            )
        y, x = np.meshgrid(rows + slide.bounds[1], columns + slide.bounds[0], indexing="ij")
        return np.stack([x.ravel(), y.ravel()], axis=1)

    def describe(self, bag: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Return TRIDENT's attributes of the arrays of a bag, from the keys that ``TileBagd`` adds.

        Magnifications are nominal: 20 is 0.5 micrometers per pixel. They are omitted if neither is known.
        """
        level0_size = float(bag["tile_size"])
        width, height = (int(side) for side in bag["spatial_shape"])
        attributes: dict[str, Any] = {
            "patch_size": self.tile_size,
            "patch_size_level0": round(level0_size),
            "overlap": self.overlap,
        }
        attributes |= {"level0_width": width, "level0_height": height}
        mpp = bag.get("mpp")
        target = NOMINAL / mpp if self.magnification is None and mpp else self.magnification
        if target is not None:
            level0 = target * level0_size / self.tile_size
            attributes |= {"target_magnification": _as_integer(target), "level0_magnification": _as_integer(level0)}
        return {"features": {}, "coords": attributes}

    def _starts(self, side: int, scale: float) -> NDArray[np.int64]:
        """Return the starts of tiles along an axis of ``side`` pixels."""
        tile, step = self.tile_size * scale, (self.tile_size - self.overlap) * scale
        count = 1 + math.ceil(max(0.0, side - tile) / step)
        starts = np.floor(np.arange(count) * step + 0.5).astype(np.int64)
        if self.edge == "pad":
            return starts[starts < side]
        last = math.floor(side - tile + 0.5)  # rounding may exceed the edge by half a pixel
        if self.edge == "drop":
            return starts[starts <= last]
        return np.unique(np.minimum(starts, last)) if last >= 0 else starts[:0]

    def _required_value(self, slide: SlideFile, name: str) -> float:
        value: Any = getattr(slide, name)
        if value is not None:
            return float(value)
        other = "mpp" if name == "magnification" else "magnification"
        known = getattr(slide, other)
        if known is None:
            option, found = ("--slide_mpp MPP", "none") if name == "mpp" else ("--magnification M", "none")
        else:  # nominal: 20 is 0.5 micrometers per pixel
            option = f"--{'slide_mpp' if name == 'mpp' else name} {NOMINAL / known:.4g}"
            found = f"none, but a {other} of {known:.4g}"
        argument, number = option[2:].split()
        raise slide.error(f"`slide` must state its {name}, got {found} (give `{argument}` {number}).", option)


def _as_integer(number: float) -> int | float:
    """Convert a whole number to an integer, as in TRIDENT's files."""
    return round(number) if abs(number - round(number)) < 1e-6 else number
