"""Folder with a page of a slide that opens from disk, with the heat map as a layer."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monai_mil_ext.data import SlideFile, Thumbnail
from monai_mil_ext.data.slides.slide_pyramid import write_slide_pyramid
from monai_mil_ext.utils import RESEARCH_USE, atomic_path, optional_dependency
from monai_mil_ext.visualize.page_template import page_template, page_text
from monai_mil_ext.visualize.relative_attention import is_nearly_even

from .slide_layers import map_data, tile_data
from .viewer_folder import FOLDER, OPENSEADRAGON, PAGE, remove_viewer, write_library, write_texts

__all__ = ["SlideView", "write_slide_viewer"]

Array = np.ndarray[Any, Any]
Image = optional_dependency("", "PIL.Image")

THUMBNAIL, PYRAMID = "thumbnail.jpg", "tiles"  # in the folder of the viewer
MAX_BYTES = 1_500_000  # of the thumbnail
QUALITY = 80
EVEN_NOTE = "Attention is nearly even: the order of tiles says little."


@dataclass(frozen=True)
class SlideView:
    """Scores of the tiles of a slide, and pixels to show them on.

    Args:
        maps: scores (N,) of the tiles by the name of the head or class; the first is that of the other results.
        coords: upper left corners (N, 2) of the tiles as (x, y), in pixels of level 0.
        tile_size: height and width of a tile in pixels of level 0.
        bounds: (x, y, width, height) of the scanned part of the slide in pixels of level 0.
        mpp: micrometers per pixel of level 0, or ``None``.
        scaling: scaling that is shown first, see :py:class:`monai_mil_ext.transforms.TileScoresToHeatmap`.
        thumbnail: thumbnail of the slide, or ``None`` if there are no pixels of it.
        top: indices of the tiles with the highest scores, highest first.
        bottom: indices of the tiles with the lowest scores, lowest first.
        pixels: pixels (k, t, t, 3) of the tiles of ``top``, and of those of ``bottom``, as bytes.

    Raises:
        ValueError: if scores and coordinates differ in number, or there is no tile.
    """

    maps: Mapping[str, Array]
    coords: Array
    tile_size: float
    bounds: tuple[int, int, int, int]
    mpp: float | None = None
    scaling: str = "ratio"
    thumbnail: Thumbnail | None = None
    top: Array | None = None
    bottom: Array | None = None
    pixels: tuple[Array, Array] | None = None

    def __post_init__(self) -> None:
        counts = sorted({len(self.coords), *(len(scores) for scores in self.maps.values())})
        if not self.maps or len(counts) > 1 or counts[0] == 0:
            raise ValueError(f"`maps` and `coords` must have one length and a tile, got {counts} tiles.")

    @property
    def scores(self) -> Array:
        """Scores (N,) of the first map."""
        return next(iter(self.maps.values()))

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, upper edge, width and height of what is shown, in pixels of level 0."""
        if self.thumbnail is None:
            x, y, width, height = self.bounds
            return x, y, width, height
        height, width = self.thumbnail.image.shape[:2]
        return (*self.thumbnail.origin, width * self.thumbnail.downsample, height * self.thumbnail.downsample)


def write_slide_viewer(
    folder: Path,
    view: SlideView,
    title: str = "",
    facts: Mapping[str, str] | None = None,
    links: Mapping[str, str] | None = None,
    slide: SlideFile | None = None,
) -> Path:
    """Write a folder ``viewer`` with a page that shows a slide and the attention of its tiles.

    The page opens from disk without a server, and loads nothing from elsewhere. Heat is a layer whose opacity, head and
    scaling can be changed, and a click on a tile of the highest or the lowest attention shows it in its place. The
    folder stays below 5 MB for up to 300,000 tiles, unless ``slide`` is given. OpenSeadragon, which draws the slide, is
    written once beside the folders of the cases, with its license.

    Args:
        folder: folder of the case, in the output folder.
        view: scores of the tiles, and pixels.
        title: heading of the page.
        facts: names and values to list, such as the model.
        links: names and relative addresses of files beside the folder.
        slide: open slide, whose pixels are then written as a pyramid; otherwise the page has the thumbnail.

    Returns:
        Path of the page.

    Raises:
        SlideFileError: if a region of ``slide`` can't be read.
    """
    remove_viewer(folder)
    target = folder / FOLDER
    library = write_library(folder.parent, OPENSEADRAGON)
    extent, source = _write_pixels(target, view, slide)
    tiles = tile_data(view.coords, view.maps, view.scaling, view.top, view.bottom, view.pixels)
    data = {
        "extent": extent,
        "edge": view.tile_size,
        "mpp": view.mpp,
        "source": source,
        **map_data(view.coords, view.maps, view.tile_size, view.scaling, extent),
        "listed": {name: [entry["tile"] for entry in group] for name, group in tiles.items()},
    }
    values = {
        "title": title,
        "facts": {**_sizes(view), **(facts or {})},
        "links": {name: f"../{address}" for name, address in (links or {}).items()},
        "even_note": EVEN_NOTE if view.scaling != "signed" and is_nearly_even(view.scores) else "",
        "groups": [("Most attention", tiles["top"], 0), ("Least attention", tiles["bottom"], len(tiles["top"]))],
        "sign": "" if view.scaling == "signed" else " ×",
        "library": f"../../{library}",
        "picture": THUMBNAIL if view.thumbnail is not None else "",
        "size": (extent[2], extent[3]),
        "maps": [entry["name"] for entry in data["maps"]],
        "left_out": len(view.maps) - len(data["maps"]),
        "scalings": data["scalings"],
        "use": RESEARCH_USE,
    }
    write_texts(target, {name: page_text(f"viewer/{name}") for name in ("viewer.css", "slide.css", "slide.js")})
    write_texts(target, {"data.js": f'"use strict";\nconst slide = {json.dumps(data, separators=(",", ":"))};\n'})
    write_texts(target, {PAGE: page_template("viewer/slide_page.html").render(**values)})
    return target / PAGE


def _write_pixels(folder: Path, view: SlideView, slide: SlideFile | None) -> tuple[Any, dict[str, Any] | None]:
    """Write the thumbnail and the pyramid, and return what they cover and how the page loads them."""
    if view.thumbnail is not None:
        with atomic_path(folder / THUMBNAIL) as temporary:
            temporary.write_bytes(_jpeg(view.thumbnail.image))
    if slide is not None:
        pyramid = write_slide_pyramid(folder / PYRAMID, slide)
        return slide.bounds, {"folder": PYRAMID, **pyramid._asdict()}
    if view.thumbnail is None:
        return view.extent, None
    return view.extent, {"file": THUMBNAIL, "width": view.thumbnail.image.shape[1]}


def _jpeg(pixels: Array) -> bytes:
    """Return an image as JPEG, made smaller until it fits."""
    image = Image.fromarray(pixels)
    while True:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=QUALITY, comment=RESEARCH_USE)
        code = buffer.getvalue()
        if len(code) <= MAX_BYTES:
            return code
        zoom = 0.95 * (MAX_BYTES / len(code)) ** 0.5
        image = image.resize((max(1, round(zoom * image.width)), max(1, round(zoom * image.height))), Image.BOX)


def _sizes(view: SlideView) -> dict[str, str]:
    """Return number and size of the tiles."""
    edge = f"{view.tile_size:g} pixels" if view.mpp is None else f"{view.tile_size * view.mpp:.4g} µm"
    width, height = view.bounds[2:]
    size = f"{width} × {height} pixels" + ("" if view.mpp is None else f" of {view.mpp:.3g} µm")
    return {"tiles": f"{len(view.coords)}, {edge} wide", "slide": size}
