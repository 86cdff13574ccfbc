"""Writers of slide results for viewers: tiles as GeoJSON polygons, heat maps as pyramidal TIFF."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray
from torch import Tensor

from monai_mil_ext.utils import RESEARCH_USE, atomic_path, check_choice, check_name, optional_dependency

__all__ = ["write_heatmap_tiff", "write_tile_geojson"]

Image = optional_dependency("", "PIL.Image")
matplotlib = optional_dependency("wsi", "matplotlib")
rankdata = optional_dependency("", "scipy.stats", "rankdata")
tifffile = optional_dependency("wsi", "tifffile")
COLORMAP = "cividis"  # of uniformly increasing lightness, so readable for color-blind people and in gray prints
DIVERGING = "coolwarm"  # of signed scores: its middle is gray, since white means no tile
LARGEST_RATIO = 4.0  # ratios to uniform attention have colors from 1/4 to 4, on a logarithmic scale, in every result
SCALINGS = ("none", "ratio", "percentile", "signed")
SMALLEST = 512  # pixels; longer side of the last level
TILE = 256
Pixels = NDArray[np.uint8]


def scale_scores(scores: NDArray[np.float64], scaling: str) -> NDArray[np.float64]:
    """Scale scores (N,) or (N, A): see :py:class:`monai_mil_ext.transforms.TileScoresToHeatmap`."""
    if scaling == "ratio":
        return scores * len(scores)
    if scaling == "percentile" and len(scores):
        percent: NDArray[np.float64] = (rankdata(scores, axis=0) - 0.5) * 100 / len(scores)
        return percent
    return scores


def write_tile_geojson(
    folder: str | os.PathLike[str],
    case_id: str,
    scores: NDArray[Any] | Tensor,
    coords: NDArray[Any] | Tensor,
    tile_size: float,
    name: str = "attention",
    about: Mapping[str, Any] | None = None,
    scaling: str = "none",
    origin: Sequence[float] = (0, 0),
    more: Mapping[str, Sequence[float]] | None = None,
) -> Path:
    """Write tiles as ``<case_id>.geojson`` for QuPath: squares with score and color.

    Coordinates are pixels of level 0, counted from ``origin``. Colors are those of :py:func:`write_heatmap_tiff`. The
    file is written atomically and contains the case ID but no path.

    Args:
        folder: folder of the file; it is created if missing.
        case_id: name of the file.
        scores: (N,), finite.
        coords: (N, 2), upper left corners (x, y).
        tile_size: height and width of a tile.
        name: name of the measurement in QuPath.
        about: what else the file states of all tiles, such as the model.
        scaling: ``"none"``, ``"ratio"``, ``"percentile"`` or ``"signed"``, see
            :py:class:`monai_mil_ext.transforms.TileScoresToHeatmap`; with ``"ratio"``, tiles have a second measurement,
            ``<name> / uniform``.
        origin: corner (x, y) from which QuPath counts: that of the bounds of the slide, to which QuPath crops it.
        more: further measurements by name, (N,) each.

    Raises:
        ValueError: when ``case_id`` is not a valid file name, an option is not allowed, or the arrays differ in length
            or are not finite.

    Example:
        >>> path = write_tile_geojson("results", "c1", np.array([0.2, 0.8]), np.array([[0, 0], [64, 0]]), 64)
        >>> [tile["properties"]["measurements"] for tile in json.loads(path.read_text())["features"]]
        [{'attention': 0.2}, {'attention': 0.8}]
    """
    check_name(case_id=case_id)
    check_choice("scaling", scaling, SCALINGS)
    values, corners = (np.asarray(array, dtype=np.float64) for array in (scores, coords))
    if values.ndim != 1 or corners.shape != (len(values), 2) or not np.isfinite(values).all():
        raise ValueError(
            f"`scores` must be finite, one for each of `coords` (N, 2), got {values.shape} for {corners.shape}."
        )
    shown = {"scaling": scaling, "origin": [*map(float, origin)], "colors": colormap(scaling)}
    head = {"type": "FeatureCollection", "use": RESEARCH_USE, "case_id": case_id, **(about or {}), **shown}
    wrong = [f"{len(v)} of {key!r}" for key, v in (more or {}).items() if len(v) != len(values)]
    if wrong:
        raise ValueError(f"`more` must have a value for each of {len(values)} tiles, got {', '.join(wrong)}.")
    squares = _tiles(values, corners - np.asarray(origin, dtype=np.float64), float(tile_size), name, scaling, more)
    path = Path(folder) / f"{case_id}.geojson"
    with atomic_path(path) as temporary, temporary.open("w") as file:
        file.write(json.dumps(head)[:-1] + ', "features": [')
        for i, tile in enumerate(squares):
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

    Colors of the scaling ``"ratio"`` range from 1/4 to 4 on a logarithmic scale, the same for every slide; others range
    from the lowest to the highest value, and those of ``"signed"`` diverge from 0, which is gray, to the largest
    absolute value on both sides. The description of the TIFF contains both, scaling, downsample, size of the
    slide, and its bounds; white means no tile. The map covers the bounds, to which QuPath crops the slide: its upper
    left corner is that of the bounds. The pixel size is that of the map, so that viewers that use micrometers can
    overlay it on the slide. The file is written atomically and contains no path.

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
    meta = {key: heatmap.meta.get(key) for key in ("scaling", "downsample", "spatial_shape", "bounds")}
    colors = {"low": low, "high": high, "colors": colormap(meta["scaling"])}
    if meta["scaling"] == "ratio":
        colors["color_range"] = [1 / LARGEST_RATIO, LARGEST_RATIO]
    if meta["scaling"] == "signed":
        colors["color_range"] = [-signed_limit(values), signed_limit(values)]
    description = json.dumps({"use": RESEARCH_USE, "case_id": case_id, **(about or {}), **meta, **colors})
    path = Path(folder) / f"{case_id}.tif"
    with atomic_path(path) as temporary:
        _write_pyramid(temporary, _colorize(values, meta["scaling"]), heatmap.meta.get("mpp"), description)
    return path


def _tiles(
    values: NDArray[np.float64],
    corners: NDArray[np.float64],
    edge: float,
    name: str,
    scaling: str,
    more: Mapping[str, Sequence[float]] | None,
) -> Iterator[dict[str, Any]]:
    shown = scale_scores(values, scaling)
    colors = _colorize(shown, scaling)
    columns = {name: values.tolist(), **({f"{name} / uniform": shown.tolist()} if scaling == "ratio" else {})}
    columns |= {key: list(column) for key, column in (more or {}).items()}
    measurements = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    for (x, y), measured, color in zip(corners.tolist(), measurements, colors.tolist(), strict=True):
        ring = [[x, y], [x + edge, y], [x + edge, y + edge], [x, y + edge], [x, y]]
        yield {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"objectType": "tile", "color": color, "measurements": measured},
        }


def colormap(scaling: str | None) -> str:
    """Return the name of the color map of a scaling."""
    return DIVERGING if scaling == "signed" else COLORMAP


def signed_limit(values: NDArray[np.float64]) -> float:
    """Return the largest absolute value, which has the color at an end of the diverging map; 1 if all are 0.

    Example:
        >>> signed_limit(np.array([-3.0, 1.0, np.nan])), signed_limit(np.zeros(2))
        (3.0, 1.0)
    """
    return max(map(abs, _range(values))) or 1.0


def _range(values: NDArray[np.float64]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _colorize(values: NDArray[np.float64], scaling: str | None) -> Pixels:
    """Map values to RGB bytes (..., 3); non-finite values are white, and constant values get the middle color."""
    finite = np.isfinite(values)
    low, high = _range(values)
    if scaling == "ratio":
        norm = matplotlib.colors.LogNorm(1 / LARGEST_RATIO, LARGEST_RATIO, clip=True)
        fraction = np.asarray(norm(np.where(finite, values, 1.0).clip(min=1 / LARGEST_RATIO)))
    elif scaling == "signed":
        fraction = 0.5 + np.where(finite, values, 0.0) / (2 * signed_limit(values))
    else:
        fraction = (np.where(finite, values, low) - low) / (high - low) if high > low else np.full(values.shape, 0.5)
    colors: Pixels = matplotlib.colormaps[colormap(scaling)](fraction, bytes=True)[..., :3].copy()
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
