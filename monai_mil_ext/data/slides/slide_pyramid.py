"""Pyramid of the tiles of a slide as JPEG files, which a page loads as it needs them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from monai_mil_ext.utils import check_positive, optional_dependency

from .slide_file import SlideFile, to_pil

__all__ = ["SlidePyramid", "write_slide_pyramid"]

Image = optional_dependency("", "PIL.Image")

TILE, QUALITY = 512, 80


class SlidePyramid(NamedTuple):
    """Layout of a pyramid: the tile in column x and row y of a level is the file ``<level>/<x>_<y>.jpg``."""

    width: int  # of the last level, in pixels of level 0 of the slide
    height: int
    tile_size: int
    min_level: int  # has one tile
    max_level: int  # each level has twice the pixels along a side of the level before


def write_slide_pyramid(folder: str | os.PathLike[str], slide: SlideFile, tile_size: int = TILE) -> SlidePyramid:
    """Write all pixels of the ``bounds`` of a slide as tiles; the levels are numbered as in Deep Zoom.

    Every region of level 0 is read once, and each tile of another level is the mean of squares of 2 x 2 pixels of the
    four tiles below it, so that neither the levels of the file nor its size matter. The files are not written
    atomically: what refers to them must be written last.

    Args:
        folder: folder of the levels.
        slide: open slide.
        tile_size: height and width of a tile in pixels.

    Raises:
        ValueError: when ``tile_size`` is not a positive integer.
        SlideFileError: when a region can't be read.
    """
    check_positive(tile_size=tile_size)
    width, height = slide.bounds[2:]
    levels = (max(width, height) - 1).bit_length()
    first = next(k for k in range(levels, -1, -1) if _side(max(width, height), levels - k) <= tile_size)
    layout = SlidePyramid(width, height, tile_size, first, levels)
    for level in range(first, levels + 1):
        (Path(folder) / str(level)).mkdir(parents=True, exist_ok=True)
    _write_tile(Path(folder), slide, layout, first, (0, 0))
    return layout


def _write_tile(folder: Path, slide: SlideFile, layout: SlidePyramid, level: int, place: tuple[int, int]) -> Any:
    """Write a tile and all tiles below it, and return its image; ``None`` if it is outside of the slide."""
    edge, down = layout.tile_size, layout.max_level - level
    left, top = (edge * k for k in place)
    width, height = _side(layout.width, down) - left, _side(layout.height, down) - top
    if width <= 0 or height <= 0:
        return None
    if down == 0:
        x, y = slide.bounds[:2]
        tile = to_pil(slide.read(0, x + left, y + top, min(edge, width), min(edge, height)))
    else:
        parts = {
            (i, j): _write_tile(folder, slide, layout, level + 1, _child(place, i, j)) for j in (0, 1) for i in (0, 1)
        }
        tile = _join(parts, edge).reduce(2)
    tile.save(folder / str(level) / f"{place[0]}_{place[1]}.jpg", "JPEG", quality=QUALITY)
    return tile


def _child(place: tuple[int, int], column: int, row: int) -> tuple[int, int]:
    return 2 * place[0] + column, 2 * place[1] + row


def _join(parts: dict[tuple[int, int], Any], edge: int) -> Any:
    """Return up to four tiles as one image; the first is never missing."""
    parts = {place: tile for place, tile in parts.items() if tile is not None}
    width = sum(tile.width for (_, row), tile in parts.items() if row == 0)
    height = sum(tile.height for (column, _), tile in parts.items() if column == 0)
    image = Image.new("RGB", (width, height))
    for (column, row), tile in parts.items():
        image.paste(tile, (column * edge, row * edge))
    return image


def _side(side: int, down: int) -> int:
    """Return the pixels of a side that was halved ``down`` times, each time rounded up."""
    return ((side - 1) >> down) + 1
