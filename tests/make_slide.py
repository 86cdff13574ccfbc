"""Whole slides from arrays: pyramidal TIFF files as of scanners and converters, and damaged files."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from PIL import Image

__all__ = [
    "TILE",
    "centimeters",
    "damage_tile",
    "levels_of",
    "stained",
    "write_mosaic",
    "write_slide",
    "write_truncated",
]

Array = np.ndarray[Any, Any]
PAPER, TISSUE = (243, 242, 244), (196, 120, 170)  # RGB of glass and of an H&E stain
TILE = 256  # size of the tiles of a mosaic in pixels
SHORT, LONG, RATIONAL, LONG8 = 3, 4, 5, 16  # TIFF data types


def stained(size: tuple[int, int], *boxes: tuple[int, int, int, int], color: Any = TISSUE, seed: int = 0) -> Array:
    """Return noisy glass (height, width, 3) with tissue in ``boxes`` (left, top, right, bottom)."""
    noise = np.random.default_rng(seed).integers(-6, 7, size=(*size, 1))
    image = np.full((*size, 3), PAPER, dtype=np.int64)
    for left, top, right, bottom in boxes:
        image[top:bottom, left:right] = color
    return (image + noise).clip(0, 255).astype(np.uint8)


def levels_of(image: Array, levels: int = 3) -> list[Array]:
    """Return ``image`` and its levels, each the mean of squares of 2 x 2 pixels of the one before."""
    images = [image]
    for _ in range(1, levels):
        height, width = (side - side % 2 for side in images[-1].shape[:2])
        squares = images[-1][:height, :width].reshape(height // 2, 2, width // 2, 2, -1)
        images.append(squares.mean(axis=(1, 3)).round().astype(image.dtype))
    return images


def centimeters(mpp: float, factor: int = 1) -> dict[str, Any]:
    """Return the resolution tags of a level."""
    return {"resolution": (1e4 / mpp / factor, 1e4 / mpp / factor), "resolutionunit": "CENTIMETER"}


def write_slide(
    path: Path, image: Array, mpp: float | None = 0.5, levels: int = 3, tile: int | None = 256, description: str = ""
) -> Path:
    """Write ``image`` (height, width, channels) losslessly; level k + 1 averages 2 x 2 pixels of level k.

    Each level is a page, since OpenSlide does not find levels in subdirectories of a page.
    """
    options: dict[str, Any] = {"photometric": "rgb", "compression": "deflate", "metadata": None}
    if tile is not None:
        options["tile"] = (tile, tile)
    with tifffile.TiffWriter(path) as file:
        for k, level in enumerate(levels_of(image, levels)):
            about: dict[str, Any] = {"subfiletype": 1} if k else {"description": description}
            file.write(level, **about, **options, **({} if mpp is None else centimeters(mpp, 2**k)))
    return path


def write_mosaic(
    path: Path,
    square: Array,
    size: tuple[int, int],
    mpp: float = 0.5,
    factors: Sequence[int] = (1, 4, 16, 64),
    quality: int = 80,
) -> Path:
    """Write a pyramid of any ``size`` (width, height) that repeats ``square`` (side, side, 3).

    Each distinct JPEG tile is stored once and referenced repeatedly, so a slide of 100,000 x 100,000 pixels takes a few
    megabytes. Readers decode it like any other file.

    Args:
        path: file to write, a BigTIFF.
        square: image whose side is ``TILE`` times a power of two.
        size: size of level 0 in pixels.
        mpp: micrometers per pixel of level 0.
        factors: downsampling factors of the levels, powers of two.
        quality: JPEG quality.
    """
    with path.open("wb") as file:
        file.write(b"II" + struct.pack("<HHHQ", 43, 8, 0, 0))
        link = 8
        for factor in factors:
            level = _Level(*(-(-side // factor) for side in size), 1e4 / mpp / factor, factor > 1)
            tiles = []
            for tile in _tiles(square, factor):
                stream = io.BytesIO()
                Image.fromarray(tile).save(stream, "JPEG", quality=quality, subsampling="4:2:0")
                tiles.append((file.tell(), len(stream.getvalue())))
                file.write(stream.getvalue())
            link = _write_directory(file, level, tiles, link)
    return path


def write_truncated(path: Path, image: Array, fraction: float = 0.5) -> Path:
    """Write a truncated slide: it has its header, but ends after ``fraction`` of the file."""
    content = write_slide(path, image).read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    return path


def damage_tile(path: Path, number: int) -> Path:
    """Overwrite the compressed bytes of one tile of level 0."""
    with tifffile.TiffFile(path) as file:
        offset, size = file.pages[0].dataoffsets[number], file.pages[0].databytecounts[number]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * size)
    return path


class _Level(NamedTuple):
    width: int
    height: int
    pixels_per_cm: float
    reduced: bool


def _tiles(square: Array, factor: int) -> Iterator[Array]:
    """Yield the tiles of one period of a level in row-major order; at least one tile."""
    side = len(square) // factor
    small = np.asarray(Image.fromarray(square).reduce(factor)) if factor > 1 else square
    repeats = max(1, TILE // side)
    small = np.tile(small, (repeats, repeats, 1))
    for top in range(0, len(small), TILE):
        for left in range(0, len(small), TILE):
            yield np.ascontiguousarray(small[top : top + TILE, left : left + TILE])


def _write_directory(file: Any, level: _Level, tiles: Sequence[tuple[int, int]], link: int) -> int:
    """Write the directory of a level, point the bytes at ``link`` to it, and return the offset of its own link."""
    columns, rows, period = -(-level.width // TILE), -(-level.height // TILE), round(len(tiles) ** 0.5)
    indices = (np.arange(rows)[:, None] % period) * period + np.arange(columns) % period
    offsets, counts = np.array(tiles, dtype="<u8")[indices.ravel()].T
    resolution = struct.pack("<II", round(level.pixels_per_cm * 1000), 1000)
    entries = [
        (254, LONG, [int(level.reduced)]),
        (256, LONG, [level.width]),
        (257, LONG, [level.height]),
        (258, SHORT, [8, 8, 8]),
        (259, SHORT, [7]),  # JPEG
        (262, SHORT, [6]),  # YCbCr
        (277, SHORT, [3]),
        (282, RATIONAL, resolution),
        (283, RATIONAL, resolution),
        (284, SHORT, [1]),
        (296, SHORT, [3]),  # per centimeter
        (322, LONG, [TILE]),
        (323, LONG, [TILE]),
        (324, LONG8, _store(file, offsets.tobytes())),
        (325, LONG8, _store(file, counts.tobytes())),
        (530, SHORT, [2, 2]),
    ]
    start = file.tell() + file.tell() % 2
    file.seek(link)
    file.write(struct.pack("<Q", start))
    file.seek(start)
    file.write(struct.pack("<Q", len(entries)))
    for tag, kind, value in entries:
        file.write(_entry(tag, kind, value))
    file.write(bytes(8))
    return int(file.tell() - 8)


class _Stored(NamedTuple):
    offset: int
    count: int
    first: bytes


def _store(file: Any, values: bytes) -> _Stored:
    """Write 8-byte numbers that an entry points to; a single number is stored in the entry itself."""
    offset = int(file.tell())
    file.write(values)
    return _Stored(offset, len(values) // 8, values[:8])


def _entry(tag: int, kind: int, value: Any) -> bytes:
    if isinstance(value, _Stored):
        inline = value.first if value.count == 1 else struct.pack("<Q", value.offset)
        return struct.pack("<HHQ", tag, kind, value.count) + inline
    if isinstance(value, bytes):
        return struct.pack("<HHQ", tag, kind, 1) + value
    packed = struct.pack(f"<{len(value)}{'H' if kind == SHORT else 'I'}", *value)
    return struct.pack("<HHQ", tag, kind, len(value)) + packed.ljust(8, b"\0")
