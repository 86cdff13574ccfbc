"""Values of the tiles of a slide in the form in which the page of a viewer reads them."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from monai_mil_ext.data.slides.heatmap_files import colormap, scale_scores
from monai_mil_ext.utils import optional_dependency
from monai_mil_ext.visualize.relative_attention import RATIO_LIMITS

__all__ = ["map_data", "tile_data"]

Array = np.ndarray[Any, Any]
Image = optional_dependency("", "PIL.Image")
matplotlib = optional_dependency("figures", "matplotlib")

MAX_SCORES = 400_000  # of all maps together, which are 2.1 MB; the first map is always complete
MAX_PIXELS = 4096  # of a side of the heat map
PIXELS_PER_TILE = 4  # along a side, at most
TILE_SIDES, TILE_BYTES, QUALITY = (224, 160, 112, 64), 700_000, 80  # of the pictures of tiles
NAMES = {
    "ratio": "relative to uniform",
    "percentile": "percentile of the tiles",
    "none": "attention itself",
    "signed": "contribution to the logit",
}


def map_data(
    coords: Array, maps: Mapping[str, Array], tile_size: float, scaling: str, extent: tuple[float, float, float, float]
) -> dict[str, Any]:
    """Return places, scores and colors of the tiles for the script of the page.

    Places are counted in steps from ``origin``: in the usual grid of tiles they are small numbers. Scores are float32,
    so that the page can scale and rank them as :py:func:`scale_scores` does.

    Args:
        coords: upper left corners (N, 2) in pixels of level 0.
        maps: scores (N,) by name.
        tile_size: height and width of a tile in pixels of level 0.
        scaling: scaling that is shown first.
        extent: left, upper edge, width and height of what is shown, in pixels of level 0.
    """
    corners = np.round(np.asarray(coords, dtype=float)).astype(np.int64)
    origin = corners.min(axis=0)
    step = int(np.gcd.reduce((corners - origin).ravel())) or 1
    places = (corners - origin) // step
    is_wide = bool(places.max() > np.iinfo(np.uint16).max)
    scalings = ["signed", "percentile"] if scaling == "signed" else ["ratio", "percentile", "none"]
    count = max(1, MAX_SCORES // len(corners))
    return {
        "count": len(corners),
        "origin": (origin - np.asarray(extent[:2])).tolist(),
        "step": step,
        "wide": is_wide,
        "places": _code(places.astype("<u4" if is_wide else "<u2")),
        "pixel": _pixel(step, tile_size, extent),
        "maps": [{"name": name, "scores": _code(scores)} for name, scores in list(maps.items())[:count]],
        "scalings": [
            {"name": name, "text": NAMES[name]} for name in sorted(scalings, key=lambda name: name != scaling)
        ],
        "limits": RATIO_LIMITS,
        "colors": _colors(colormap(scaling)),
    }


def tile_data(
    coords: Array,
    maps: Mapping[str, Array],
    scaling: str,
    top: Array | None,
    bottom: Array | None,
    pixels: tuple[Array, Array] | None,
) -> dict[str, list[dict[str, Any]]]:
    """Return index, value and picture of the listed tiles, as ``top`` and ``bottom``.

    Args:
        coords: upper left corners (N, 2) in pixels of level 0.
        maps: scores (N,) by name; the values are those of the first.
        scaling: scaling of the values; ``"none"`` and ``"percentile"`` have those relative to uniform, too.
        top: indices of the tiles with the highest scores.
        bottom: indices of the tiles with the lowest scores.
        pixels: their pixels (k, t, t, 3), or ``None``.
    """
    scores = np.asarray(next(iter(maps.values())), dtype=float)
    is_ratio = scaling != "signed"
    values = scale_scores(scores, "ratio") if is_ratio else scores
    groups = [np.zeros(0, int) if part is None else np.asarray(part, int) for part in (top, bottom)]
    sources = [[""] * len(group) for group in groups] if pixels is None else _pictures(pixels)
    return {
        name: [
            {"tile": int(i), "text": _digits(values[i], is_ratio), "src": source}
            for i, source in zip(group, addresses, strict=True)
        ]
        for name, group, addresses in zip(("top", "bottom"), groups, sources, strict=True)
    }


def _digits(value: float, is_ratio: bool) -> str:
    return "< 0.01" if is_ratio and value < 0.01 else f"{value:.3g}"


def _pixel(step: int, tile_size: float, extent: tuple[float, float, float, float]) -> float:
    """Return the pixels of level 0 per pixel of the heat map: those between two tiles, if they lie in a grid."""
    is_grid = step <= tile_size <= PIXELS_PER_TILE * step and tile_size % step == 0
    pixel = step if is_grid else tile_size / PIXELS_PER_TILE
    return max(pixel, max(extent[2:]) / MAX_PIXELS)


def _pictures(pixels: tuple[Array, Array]) -> list[list[str]]:
    """Return the tiles as data addresses, smaller ones if there are many."""
    for side in TILE_SIDES:
        codes = [[_jpeg(tile, side) for tile in group] for group in pixels]
        if sum(len(code) for group in codes for code in group) <= TILE_BYTES:
            break
    return [[f"data:image/jpeg;base64,{base64.b64encode(code).decode()}" for code in group] for group in codes]


def _jpeg(tile: Array, side: int) -> bytes:
    image, buffer = Image.fromarray(tile), io.BytesIO()
    if max(image.size) > side:
        image = image.resize((side, side), Image.BOX)
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _colors(name: str) -> str:
    """Return the 256 colors of a color map as hexadecimal digits."""
    return bytes(matplotlib.colormaps[name](np.arange(256), bytes=True)[:, :3].tobytes()).hex()


def _code(values: Array) -> str:
    """Return numbers as base64: integers as they are, others as float32."""
    numbers = np.asarray(values) if np.asarray(values).dtype.kind == "u" else np.asarray(values, dtype="<f4")
    return base64.b64encode(np.ascontiguousarray(numbers).tobytes()).decode()
