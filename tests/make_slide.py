"""Whole slides from arrays: pyramidal TIFF as scanners and converters write it, and files that went wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile

__all__ = ["damage_tile", "stained", "write_slide", "write_truncated"]

Array = np.ndarray[Any, Any]
PAPER, TISSUE = (243, 242, 244), (196, 120, 170)  # glass and H&E as a scanner sees them


def stained(size: tuple[int, int], *boxes: tuple[int, int, int, int], colour: Any = TISSUE, seed: int = 0) -> Array:
    """Glass (height, width, 3) with tissue in ``boxes`` (left, top, right, bottom), both a little noisy."""
    noise = np.random.default_rng(seed).integers(-6, 7, size=(*size, 1))
    image = np.full((*size, 3), PAPER, dtype=np.int64)
    for left, top, right, bottom in boxes:
        image[top:bottom, left:right] = colour
    return (image + noise).clip(0, 255).astype(np.uint8)


def write_slide(
    path: Path, image: Array, mpp: float | None = 0.5, levels: int = 3, tile: int | None = 256, description: str = ""
) -> Path:
    """Write ``image`` (height, width, channels) without loss; level k + 1 has the mean of 2 x 2 pixels of level k.

    Levels are pages of their own: OpenSlide finds no level in sub-directories of a page.
    """
    resolution: dict[str, Any] = {}
    if mpp is not None:
        resolution = {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    options: dict[str, Any] = {"photometric": "rgb", "compression": "deflate", "metadata": None}
    if tile is not None:
        options["tile"] = (tile, tile)
    with tifffile.TiffWriter(path) as file:
        file.write(image, description=description, **options, **resolution)
        for level in range(1, levels):
            image = _halved(image)
            rate = {k: tuple(v / 2**level for v in r) if k == "resolution" else r for k, r in resolution.items()}
            file.write(image, subfiletype=1, **options, **rate)
    return path


def write_truncated(path: Path, image: Array, share: float = 0.5) -> Path:
    """Write a slide that ends early: the header is there, the tiles behind ``share`` of the file are not."""
    whole = write_slide(path, image).read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    return path


def damage_tile(path: Path, number: int) -> Path:
    """Overwrite the compressed bytes of one tile of level 0."""
    with tifffile.TiffFile(path) as file:
        offset, size = file.pages[0].dataoffsets[number], file.pages[0].databytecounts[number]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * size)
    return path


def _halved(image: Array) -> Array:
    height, width = (side - side % 2 for side in image.shape[:2])
    blocks = image[:height, :width].reshape(height // 2, 2, width // 2, 2, -1)
    return blocks.mean(axis=(1, 3)).round().astype(image.dtype)
