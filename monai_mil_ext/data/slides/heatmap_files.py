"""Writers of slide results for viewers: tiles as GeoJSON polygons, heat maps as pyramidal TIFF."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray
from torch import Tensor

from monai_mil_ext.utils import RESEARCH_USE, atomic_path, check_name, optional_dependency

__all__ = ["write_heatmap_tiff", "write_tile_geojson"]

Image = optional_dependency("", "PIL.Image")
matplotlib = optional_dependency("wsi", "matplotlib")
tifffile = optional_dependency("wsi", "tifffile")
COLORMAP = "cividis"  # of uniformly increasing lightness, so readable for color-blind people and in gray prints
SMALLEST = 512  # pixels; longer side of the last level
TILE = 256
Pixels = NDArray[np.uint8]


def write_tile_geojson(
    folder: str | os.PathLike[str],
    case_id: str,
    scores: NDArray[Any] | Tensor,
    coords: NDArray[Any] | Tensor,
    tile_size: float,
    name: str = "attention",
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Write tiles as ``<case_id>.geojson`` for QuPath: squares with score and color.

    Coordinates are pixels of level 0. Colors range from the lowest to the highest score. The file is written atomically
    and contains the case ID but no path.

    Args:
        folder: folder of the file; it is created if missing.
        case_id: name of the file.
        scores: (N,), finite.
        coords: (N, 2), upper left corners (x, y).
        tile_size: height and width of a tile.
        name: name of the measurement in QuPath.
        about: what else the file states of all tiles, such as the model.

    Raises:
        ValueError: when ``case_id`` is not a valid file name, or the arrays differ in length or are not finite.

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
    head = {"type": "FeatureCollection", "use": RESEARCH_USE, "case_id": case_id, **(about or {}), "colors": COLORMAP}
    path = Path(folder) / f"{case_id}.geojson"
    with atomic_path(path) as temporary, temporary.open("w") as file:
        file.write(json.dumps(head)[:-1] + ', "features": [')
        for i, tile in enumerate(_tiles(values, corners, float(tile_size), name)):
            file.write((",\n" if i else "\n") + json.dumps(tile))
        file.write("\n]}\n")
    return path


def write_heatmap_tiff(
    folder: str | os.PathLike[str],
    case_id: str,
    heatmap: MetaTensor,
    channel: int = 0,
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Write a heat map as ``<case_id>.tif``, a pyramidal color TIFF that OpenSlide and QuPath can open.

    Colors range from the lowest to the highest value, which the description of the TIFF contains together with
    scaling, downsample and slide size; white means no tile. The pixel size is that of the map, so that viewers that use
    micrometers can overlay it on the slide. The file is written atomically and contains no path.

    Args:
        folder: folder of the file; it is created if missing.
        case_id: name of the file.
        heatmap: map (A, h, w) from :py:class:`monai_mil_ext.transforms.TileScoresToHeatmap`, NaN outside of tiles.
        channel: index of the channel to write.
        about: what else the description states, such as the model.

    Raises:
        ValueError: when ``case_id`` is not a valid file name, or ``heatmap`` is not such a map.
    """
    check_name(case_id=case_id)
    if not isinstance(heatmap, MetaTensor) or heatmap.ndim != 3 or not 0 <= channel < len(heatmap):
        got = tuple(heatmap.shape)
        raise ValueError(f"`heatmap` must be a MetaTensor (A, h, w) with channel {channel}, got shape {got}.")
    values = heatmap[channel].as_tensor().cpu().numpy().astype(np.float64)
    low, high = _range(values)
    meta = {key: heatmap.meta.get(key) for key in ("scaling", "downsample", "spatial_shape")}
    description = json.dumps(
        {"use": RESEARCH_USE, "case_id": case_id, **(about or {}), **meta, "low": low, "high": high, "colors": COLORMAP}
    )
    path = Path(folder) / f"{case_id}.tif"
    with atomic_path(path) as temporary:
        _write_pyramid(temporary, _colorize(values, low, high), heatmap.meta.get("mpp"), description)
    return path


def _tiles(
    values: NDArray[np.float64], corners: NDArray[np.float64], edge: float, name: str
) -> Iterator[dict[str, Any]]:
    colors = _colorize(values, *_range(values))
    for (x, y), value, color in zip(corners.tolist(), values.tolist(), colors.tolist(), strict=True):
        ring = [[x, y], [x + edge, y], [x + edge, y + edge], [x, y + edge], [x, y]]
        yield {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"objectType": "tile", "color": color, "measurements": {name: value}},
        }


def _range(values: NDArray[np.float64]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _colorize(values: NDArray[np.float64], low: float, high: float) -> Pixels:
    """Map values to RGB bytes (..., 3); non-finite values are white, and constant values get the middle color."""
    finite = np.isfinite(values)
    fraction = (np.where(finite, values, low) - low) / (high - low) if high > low else np.full(values.shape, 0.5)
    colors: Pixels = matplotlib.colormaps[COLORMAP](fraction, bytes=True)[..., :3].copy()
    colors[~finite] = 255
    return colors


def _write_pyramid(path: Path, image: Pixels, mpp: float | None, description: str) -> None:
    """Write a pyramid whose levels are pages, since OpenSlide ignores sub-IFDs."""
    levels = 1 + max(0, math.ceil(math.log2(max(image.shape) / SMALLEST)))
    options: dict[str, Any] = {"photometric": "rgb", "compression": "zlib", "tile": (TILE, TILE), "metadata": None}
    with tifffile.TiffWriter(path) as file:
        for level in range(levels):
            if mpp is not None:
                pixels_per_cm = 1e4 / (mpp * 2**level)
                options.update(resolution=(pixels_per_cm, pixels_per_cm), resolutionunit="CENTIMETER")
            level_options = {"subfiletype": 1} if level else {"description": description}
            file.write(image, software="monai_mil_ext", **options, **level_options)
            image = np.asarray(Image.fromarray(image).reduce(2))
