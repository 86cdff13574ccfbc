"""Sheets of many slices in one image file, which a page loads as it needs them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from monai_mil_ext.utils import atomic_path, optional_dependency

__all__ = ["SpriteSheets", "write_sprite_sheets"]

Array = np.ndarray[Any, Any]
Image = optional_dependency("", "PIL.Image")

SHEET_SIDE, SHEET_TILES = 2048, 4  # largest side of a sheet in pixels, and most tiles along it
BLOCK = 8  # pixels of a block of JPEG: tiles begin at blocks, so that neighbors don't bleed into each other
QUALITY, SMALLEST = 80, 48
SAMPLE = 16  # slices from which the size of all is estimated


class SpriteSheets(NamedTuple):
    """Layout of sheets: slice i is tile ``i % (columns * rows)``, by rows, of file ``i // (columns * rows)``."""

    files: list[str]
    columns: int
    rows: int
    width: int  # of a slice, in pixels of the sheet
    height: int
    step_x: int  # from one slice to the next
    step_y: int


def write_sprite_sheets(folder: Path, slices: Array, max_bytes: int | None = None) -> SpriteSheets:
    """Write slices as sheets ``slices_<k>.jpg``, made smaller until they fit, or ``.png`` with all pixels.

    Args:
        folder: folder of the sheets, created if it is missing.
        slices: images (N, h, w) in [0, 1].
        max_bytes: largest size of all files together; ``None`` keeps all pixels and 256 gray values.
    """
    zoom = 1.0 if max_bytes is None else _zoom(slices, max_bytes)
    while True:
        sheets, codes = _encode(slices, zoom, is_lossless=max_bytes is None)
        total = sum(map(len, codes))
        if max_bytes is None or total <= max_bytes or max(sheets.width, sheets.height) <= SMALLEST:
            break
        zoom *= 0.95 * (max_bytes / total) ** 0.5
    for name, code in zip(sheets.files, codes, strict=True):
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(code)
    return sheets


def _zoom(slices: Array, max_bytes: int) -> float:
    """Return the scale at which all slices probably fit, from that at which some do."""
    count, zoom = len(slices), 1.0
    sample = slices[np.linspace(0, count - 1, min(count, SAMPLE)).astype(int)]
    while zoom * max(slices.shape[1:]) > SMALLEST:
        total = sum(map(len, _encode(sample, zoom, is_lossless=False)[1])) * count / len(sample)
        if total <= max_bytes:
            break
        zoom *= 0.95 * (max_bytes / total) ** 0.5
    return zoom


def _encode(slices: Array, zoom: float, is_lossless: bool) -> tuple[SpriteSheets, list[bytes]]:
    """Return the layout and the files of slices at a scale."""
    height, width = (max(1, round(zoom * side)) for side in slices.shape[1:])
    step_y, step_x = (-(-side // BLOCK) * BLOCK for side in (height, width))
    rows, columns = (int(np.clip(SHEET_SIDE // step, 1, SHEET_TILES)) for step in (step_y, step_x))
    end, per = "png" if is_lossless else "jpg", rows * columns
    parts = [slices[i : i + per] for i in range(0, len(slices), per)]
    names = [f"slices_{k:03d}.{end}" for k in range(len(parts))]
    layout = SpriteSheets(names, columns, rows, width, height, step_x, step_y)
    return layout, [_sheet(part, layout, is_lossless) for part in parts]


def _sheet(slices: Array, layout: SpriteSheets, is_lossless: bool) -> bytes:
    """Return one sheet as a file; it has only as many rows as it needs."""
    rows = -(-len(slices) // layout.columns)
    sheet = np.zeros((rows * layout.step_y, layout.columns * layout.step_x), np.uint8)
    margin = ((0, layout.step_y - layout.height), (0, layout.step_x - layout.width))
    for i, image in enumerate(slices):
        y, x = i // layout.columns * layout.step_y, i % layout.columns * layout.step_x
        gray = np.round(np.nan_to_num(image).clip(0, 1) * 255).astype(np.uint8)
        if gray.shape != (layout.height, layout.width):
            gray = np.asarray(Image.fromarray(gray).resize((layout.width, layout.height), Image.BOX))
        sheet[y : y + layout.step_y, x : x + layout.step_x] = np.pad(gray, margin, mode="edge")
    buffer = io.BytesIO()
    options = {"format": "PNG"} if is_lossless else {"format": "JPEG", "quality": QUALITY}
    Image.fromarray(sheet).save(buffer, **options)
    return buffer.getvalue()
