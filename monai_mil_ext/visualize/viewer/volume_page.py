"""Page of a scan in three planes and in 3D, with its attention as a layer, that opens from disk."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from monai_mil_ext.data.scans.nifti_writer import nifti_bytes
from monai_mil_ext.utils import optional_dependency
from monai_mil_ext.visualize.html_page import Scan
from monai_mil_ext.visualize.page_template import page_template, page_text
from monai_mil_ext.visualize.relative_attention import attention_ratio, ratio_norm
from monai_mil_ext.visualize.slice_display import SliceDisplay
from monai_mil_ext.visualize.stack_views import slice_edges, slice_spans

from .viewer_folder import FOLDER, NIIVUE, PAGE, write_library, write_texts

__all__ = ["VOLUME_PAGE", "has_volume", "scan_volumes", "write_volume_page"]

Array = np.ndarray[Any, Any]
Image = optional_dependency("", "PIL.Image")

VOLUME_PAGE = "volume.html"
MAX_VOXELS = 32_000_000  # a browser keeps eight bytes of each, four for the scan and four for the heat
MAX_ROWS = 4  # of the grid, for each slice: those of an irregular series may lie close in one place only
LOWEST, HIGHEST = 1, 255  # colors of the heat; 0 is none
AXES = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}  # of RAS


def has_volume(display: SliceDisplay) -> bool:
    """Return whether the place of the slices in the patient is known, as far as a volume needs it."""
    return display.plane is not None and display.pixel_mm is not None


def write_volume_page(folder: Path, scan: Scan, display: SliceDisplay, values: Mapping[str, Any]) -> Path:
    """Write ``volume.html`` into the viewer of a scan: three planes and a view in 3D, which NiiVue draws.

    The page needs WebGL 2, and says so where a browser has none. Volumes are texts of a script, since a page from disk
    can't read other files. NiiVue is written once beside the folders of the cases, with its license.

    Args:
        folder: folder of the case, in the output folder.
        scan: attention, position, slices and reference, cropped to the field of view.
        display: orientation and millimeters.
        values: values of the page of the scan, see :py:func:`monai_mil_ext.visualize.html_page.page_values`.

    Returns:
        Path of the page.
    """
    target = folder / FOLDER
    attention, position = np.asarray(scan[0]), np.asarray(scan[1], dtype=float)
    volumes = scan_volumes(attention, position, np.asarray(scan[2]), display)
    codes = [base64.b64encode(nifti_bytes(*volume)).decode() for volume in volumes]
    data = {
        "axis": AXES[display.directions[0]][0],
        "positions": position.tolist(),
        "spans": slice_spans(position).tolist(),
        "slices": [{key: row[key] for key in ("name", "place", "ratio")} for row in values["data"]["slices"]],
        "first": values["data"]["first"],
        "colors": values["data"]["key"],
        "windows": values["data"]["windows"],
    }
    names = dict(zip(("scan", "heat"), codes, strict=True))
    script = "".join(
        f"const {name} = {json.dumps(content)};\n" for name, content in (("about", data), ("volumes", names))
    )
    page = page_template("viewer/volume_page.html").render(
        **{**values, "library": f"../../{write_library(folder.parent, NIIVUE)}", "back": PAGE}
    )
    texts = {"volume.css": page_text("viewer/volume.css"), "volume.js": page_text("viewer/volume.js")}
    write_texts(target, {**texts, "volume_data.js": f'"use strict";\n{script}', VOLUME_PAGE: page})
    return target / VOLUME_PAGE


def scan_volumes(
    attention: Array, position: Array, slices: Array, display: SliceDisplay
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Return the scan and the heat as volumes (X, Y, Z) of bytes with their affines (RAS mm).

    X runs along the rows of a slice, Y along its columns and Z from slice to slice. The slices of an irregular series
    are copied to a regular grid; gaps are black and have no heat. The heat has one voxel for each slice, as large as
    the slice: the logarithm of attention relative to uniform attention, from 1 (a quarter or less) to 255 (four times).

    Args:
        attention: attention weights (N,).
        position: positions (N,) in mm, ascending.
        slices: images (N, h, w) in [0, 1].
        display: orientation and millimeters, see :py:func:`has_volume`.
    """
    rows, first, step = _grid(position)
    pixels = _pixels(slices, len(rows))
    height, width = (n * mm for n, mm in zip(slices.shape[1:], display.pixel_mm or (1.0, 1.0), strict=True))
    part = np.clip(ratio_norm()(np.maximum(attention_ratio(attention), 1e-9)).filled(0), 0, 1)
    colors = (LOWEST + np.round((HIGHEST - LOWEST) * part)).astype(np.uint8)
    heat = np.where(rows >= 0, colors[rows], 0)[None, None]
    shown = np.where((rows >= 0)[:, None, None], pixels[rows], 0).transpose(2, 1, 0)
    volumes = []
    for volume in (shown, heat):
        size = np.array([width / volume.shape[0], height / volume.shape[1], step])
        volumes.append((volume, _affine(volume.shape, size, first, display.directions)))
    return volumes[0], volumes[1]


def _grid(position: Array) -> tuple[Array, float, float]:
    """Return the slice of each row of a regular grid, -1 in gaps, the position of its first row, and its step in mm."""
    edges, index = slice_edges(position)
    length = edges[-1] - edges[0]
    usual = 2 * float(slice_spans(position)[-1, 1] - position[-1])
    count = max(1, round(length / max(usual, length / (MAX_ROWS * len(position)))))
    step = float(length / count)
    centers = edges[0] + step * (np.arange(count) + 0.5)
    return index[np.searchsorted(edges[1:-1], centers)], float(centers[0]), step


def _pixels(slices: Array, count: int) -> Array:
    """Return slices as bytes, smaller ones if the volume of ``count`` rows would be too large."""
    zoom = min(1.0, (MAX_VOXELS / (count * slices.shape[1] * slices.shape[2])) ** 0.5)
    height, width = (max(1, int(zoom * side)) for side in slices.shape[1:])
    pixels = np.empty((len(slices), height, width), np.uint8)
    for i, image in enumerate(slices):
        gray = np.round(np.nan_to_num(image).clip(0, 1) * 255).astype(np.uint8)
        if gray.shape != (height, width):
            gray = np.asarray(Image.fromarray(gray).resize((width, height), Image.BOX))
        pixels[i] = gray
    return pixels


def _affine(shape: tuple[int, ...], size: Array, first: float, directions: str) -> Array:
    """Return the affine of a volume whose slices are centered, and lie at their positions along the slice axis."""
    affine = np.eye(4)
    affine[:3] = 0
    for column, (letter, mm, count) in enumerate(zip(reversed(directions), size, shape, strict=True)):
        axis, sign = AXES[letter]
        affine[axis, column] = sign * mm
        affine[axis, 3] = first if column == 2 else -sign * mm * (count - 1) / 2
    return affine
