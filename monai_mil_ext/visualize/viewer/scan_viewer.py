"""Folder with a page of a scan that opens from disk and loads its slices as it needs them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from monai_mil_ext.visualize.html_page import Scan, page_values, slice_jpeg
from monai_mil_ext.visualize.page_template import page_template, page_text
from monai_mil_ext.visualize.slice_display import SliceDisplay
from monai_mil_ext.visualize.slice_scores import check_slices, shown_slices

from .sprite_sheets import write_sprite_sheets
from .viewer_folder import FOLDER, PAGE, remove_viewer, write_texts
from .volume_page import VOLUME_PAGE, has_volume, write_volume_page

__all__ = ["write_scan_viewer"]

MAX_BYTES = 4_000_000  # of all slices; page and texts add less than 1 MB
MAX_PLANE_PIXELS = 32_000_000  # of all slices, for planes across them: a browser keeps four bytes of each


def write_scan_viewer(
    folder: Path,
    scan: Scan,
    top_k: int = 4,
    title: str = "",
    facts: Mapping[str, str] | None = None,
    display: SliceDisplay | None = None,
    links: Mapping[str, str] | None = None,
    is_full: bool = False,
) -> Path:
    """Write the page of :py:func:`monai_mil_ext.visualize.scan_page` as a folder ``viewer``, with larger slices.

    The folder has ``index.html``, one style sheet, two plain scripts and the slices as sheets of up to 16, which are
    loaded as they are needed. It works from disk without a server, and loads nothing from elsewhere. In stacks of up to
    32 million pixels, a click on the slice chooses the point through which the two views of the stack go.

    A full viewer has a second page, ``volume.html``, see :py:func:`write_volume_page`, if the orientation of the slices
    and the size of a pixel are known.

    Args:
        folder: folder of the case.
        scan: attention weights (N,), positions (N,) in mm, slices (N, h, w) in [0, 1], and reference masks (N, h, w),
            labels (N,) or ``None``.
        top_k: number of slices to list.
        title: heading of the page.
        facts: names and values to list, such as the model.
        display: letters, millimeters, numbers and window.
        links: names and relative addresses of files beside the folder.
        is_full: whether to keep all pixels of the slices, and to add the page in 3D; otherwise the folder stays below
            5 MB.

    Returns:
        Path of the page.

    Raises:
        ValueError: if the arrays differ in length, or ``top_k`` is not positive.
    """
    check_slices(*scan, top_k)
    display = display or SliceDisplay()
    attention, position, slices, reference = *scan[:2], display.crop(scan[2]), display.crop(scan[3])
    remove_viewer(folder)
    target = folder / FOLDER
    sheets = write_sprite_sheets(target, slices, None if is_full else MAX_BYTES)
    pictures = [""] * len(slices)
    for i in shown_slices(attention, top_k)[0]:  # they are seen without scripts, and before a sheet is loaded
        pictures[i] = slice_jpeg(slices[i], display)
    beside = {name: f"../{address}" for name, address in (links or {}).items()}
    scan = (attention, position, slices, reference)
    values = page_values(scan, pictures, top_k, title, facts, display, beside)
    values["data"]["slices"] = [{**row, "src": ""} for row in values["data"]["slices"]]
    if is_full and has_volume(display):
        write_volume_page(folder, scan, display, values)
        values["volume"] = VOLUME_PAGE
    values["data"]["sheets"] = sheets._asdict()
    values["data"]["planes"] = len(slices) * sheets.width * sheets.height <= MAX_PLANE_PIXELS
    write_texts(target, {"viewer.css": page_text("viewer/viewer.css"), "viewer.js": page_text("viewer/viewer.js")})
    write_texts(
        target, {"scan.js": f'"use strict";\nconst scan = {json.dumps(values["data"], separators=(",", ":"))};\n'}
    )
    write_texts(target, {PAGE: page_template("viewer/scan_page.html").render(**values, inline=False)})
    return target / PAGE
