"""The same slide in the containers of scanners and converters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile

__all__ = ["CORNERS", "SIDE", "marked", "write_scn"]

Array = np.ndarray[Any, Any]
SIDE = 128  # pixels, side of a marked corner
CORNERS = {
    "top left": (200, 30, 40),
    "top right": (30, 140, 60),
    "bottom left": (40, 60, 190),
    "bottom right": (220, 200, 40),
}
SCN = """<?xml version="1.0"?>
<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01" uuid="u">
<collection sizeX="{plane[0]}" sizeY="{plane[1]}">
<image uuid="1"><creationDate>2020-01-01T00:00:00</creationDate><device model="Leica SCN400"/>
<pixels sizeX="{size[0]}" sizeY="{size[1]}">{levels}</pixels>
<view sizeX="{view[0]}" sizeY="{view[1]}" offsetX="{offset[0]}" offsetY="{offset[1]}" spacingZ="0"/>
<scanSettings><objectiveSettings><objective>{power}</objective></objectiveSettings>
<illuminationSettings><illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings>
</image></collection></scn>"""


def marked(image: Array, side: int = SIDE) -> Array:
    """Return a copy of ``image`` with a square of another color in each corner: red, green, blue and yellow."""
    image = image.copy()
    rows, columns = (slice(None, side), slice(-side, None)), (slice(None, side), slice(-side, None))
    places = [(row, column) for row in rows for column in columns]
    for (row, column), color in zip(places, CORNERS.values(), strict=True):
        image[row, column] = color
    return image


def halved(image: Array) -> Array:
    """Return the mean of squares of 2 x 2 pixels."""
    height, width = (side - side % 2 for side in image.shape[:2])
    blocks = image[:height, :width].reshape(height // 2, 2, width // 2, 2, -1)
    return blocks.mean(axis=(1, 3)).round().astype(image.dtype)


def write_scn(
    path: Path,
    image: Array,
    mpp: float = 0.5,
    plane: tuple[int, int] = (10_000, 8_000),
    offset: tuple[int, int] = (6_000, 4_000),
    levels: int = 2,
    power: int = 20,
) -> Path:
    """Write a Leica SCN, whose scanned region lies at ``offset`` (x, y) in a larger, empty ``plane`` of pixels."""
    pyramid = [image]
    for _ in range(1, levels):
        pyramid.append(halved(pyramid[-1]))
    nanometers = round(mpp * 1000)
    height, width = image.shape[:2]
    xml = SCN.format(
        plane=[side * nanometers for side in plane],
        size=(width, height),
        view=(width * nanometers, height * nanometers),
        offset=[start * nanometers for start in offset],
        levels="".join(
            f'<dimension r="{k}" ifd="{k}" sizeX="{level.shape[1]}" sizeY="{level.shape[0]}"/>'
            for k, level in enumerate(pyramid)
        ),
        power=power,
    )
    options: dict[str, Any] = {"tile": (256, 256), "photometric": "rgb", "compression": "deflate", "metadata": None}
    options |= {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for number, level in enumerate(pyramid):
            file.write(level, description=xml if number == 0 else None, subfiletype=0 if number == 0 else 1, **options)
    return path
