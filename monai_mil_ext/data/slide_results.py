"""Answers to slides as files that viewers open: tiles as polygons, and the map of their scores as a pyramid."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from monai.data import MetaTensor
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from monai_mil_ext.utils import RESEARCH_USE, atomic_path, check_name, import_extra

__all__ = ["write_heatmap_tiff", "write_tile_geojson"]

tifffile = import_extra("wsi", "tifffile")
COLOURS = "cividis"  # its lightness grows evenly, so colour-blind readers and prints in grey get the same
SMALLEST = 512  # pixels of the longer side of the last level
TILE = 256
Pixels = NDArray[np.uint8]


def write_tile_geojson(
    folder: str | os.PathLike[str],
    case_id: str,
    scores: NDArray[Any] | Tensor,
    coords: NDArray[Any] | Tensor,
    tile_size: float,
    name: str = "attention",
) -> Path:
    """Write tiles as ``<case_id>.geojson`` for QuPath: squares in pixels of level 0 with their score and its colour.

    Colours run from the lowest to the highest score. It is written as a whole or not at all, and holds the case id and
    no path.

    Args:
        folder: where to write; it is made where it is missing.
        case_id: names the file.
        scores: (N,), finite.
        coords: (N, 2), upper left corners (x, y).
        tile_size: height and width of a tile.
        name: of the measurement in QuPath.

    Raises:
        ValueError: when ``case_id`` is no name of a file, or the arrays don't fit or are not finite.

    Example:
        >>> path = write_tile_geojson("results", "c1", np.array([0.2, 0.8]), np.array([[0, 0], [64, 0]]), 64)
        >>> [tile["properties"]["measurements"] for tile in json.loads(path.read_text())["features"]]
        [{'attention': 0.2}, {'attention': 0.8}]
    """
    check_name(case_id=case_id)
    values, corners = (np.asarray(array, dtype=np.float64) for array in (scores, coords))
    if values.ndim != 1 or corners.shape != (len(values), 2) or not np.isfinite(values).all():
        raise ValueError(
            f"`scores` must be finite, one for each of `coords` (N, 2), got {values.shape} for {corners.shape}."
        )
    head = {"type": "FeatureCollection", "use": RESEARCH_USE, "case_id": case_id, "colours": COLOURS}
    path = Path(folder) / f"{case_id}.geojson"
    with atomic_path(path) as temporary, temporary.open("w") as file:
        file.write(json.dumps(head)[:-1] + ', "features": [')
        for i, tile in enumerate(_tiles(values, corners, float(tile_size), name)):
            file.write((",\n" if i else "\n") + json.dumps(tile))
        file.write("\n]}\n")
    return path


def write_heatmap_tiff(folder: str | os.PathLike[str], case_id: str, heatmap: MetaTensor, channel: int = 0) -> Path:
    """Write a map as ``<case_id>.tif``, a pyramid in colours that OpenSlide and QuPath open beside its slide.

    Colours run from the lowest to the highest value, which stand in the description with the scaling, the downsample
    and the size of the slide; white is no tile. Pixels have the size that the map tells, so viewers that go by
    micrometres lay it over the slide. It is written as a whole or not at all, and holds no path.

    Args:
        folder: where to write; it is made where it is missing.
        case_id: names the file.
        heatmap: (A, h, w), of :py:class:`monai_mil_ext.transforms.TileScoresToHeatmap`, NaN where there is no tile.
        channel: which of the A to write.

    Raises:
        ValueError: when ``case_id`` is no name of a file, or ``heatmap`` no such map.
    """
    check_name(case_id=case_id)
    if not isinstance(heatmap, MetaTensor) or heatmap.ndim != 3 or not 0 <= channel < len(heatmap):
        got = tuple(heatmap.shape)
        raise ValueError(f"`heatmap` must be a MetaTensor (A, h, w) with channel {channel}, got shape {got}.")
    values = heatmap[channel].as_tensor().cpu().numpy().astype(np.float64)
    low, high = _range(values)
    told = {key: heatmap.meta.get(key) for key in ("scaling", "downsample", "spatial_shape")}
    about = json.dumps({"use": RESEARCH_USE, "case_id": case_id, **told, "low": low, "high": high, "colours": COLOURS})
    path = Path(folder) / f"{case_id}.tif"
    with atomic_path(path) as temporary:
        _write_pyramid(temporary, _coloured(values, low, high), heatmap.meta.get("mpp"), about)
    return path


def _tiles(
    values: NDArray[np.float64], corners: NDArray[np.float64], edge: float, name: str
) -> Iterator[dict[str, Any]]:
    colours = _coloured(values, *_range(values))
    for (x, y), value, colour in zip(corners.tolist(), values.tolist(), colours.tolist(), strict=True):
        ring = [[x, y], [x + edge, y], [x + edge, y + edge], [x, y + edge], [x, y]]
        yield {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"objectType": "tile", "color": colour, "measurements": {name: value}},
        }


def _range(values: NDArray[np.float64]) -> tuple[float, float]:
    real = values[np.isfinite(values)]
    return (float(real.min()), float(real.max())) if real.size else (0.0, 0.0)


def _coloured(values: NDArray[np.float64], low: float, high: float) -> Pixels:
    """Bytes (..., 3); what is not finite is white, and values that are all equal are the middle."""
    real = np.isfinite(values)
    share = (np.where(real, values, low) - low) / (high - low) if high > low else np.full(values.shape, 0.5)
    colours: Pixels = colormaps[COLOURS](share, bytes=True)[..., :3].copy()
    colours[~real] = 255
    return colours


def _write_pyramid(path: Path, image: Pixels, mpp: float | None, about: str) -> None:
    """Levels are pages of their own: OpenSlide finds none in sub-directories of a page."""
    levels = 1 + max(0, math.ceil(math.log2(max(image.shape) / SMALLEST)))
    options: dict[str, Any] = {"photometric": "rgb", "compression": "zlib", "tile": (TILE, TILE), "metadata": None}
    with tifffile.TiffWriter(path) as file:
        for level in range(levels):
            if mpp is not None:
                pixels_per_cm = 1e4 / (mpp * 2**level)
                options.update(resolution=(pixels_per_cm, pixels_per_cm), resolutionunit="CENTIMETER")
            reduced = {"subfiletype": 1} if level else {"description": about}
            file.write(image, software="monai_mil_ext", **options, **reduced)
            image = np.asarray(Image.fromarray(image).reduce(2))
