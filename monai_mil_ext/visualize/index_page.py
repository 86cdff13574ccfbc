"""Index page of the results of many cases."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from monai_mil_ext.utils import RESEARCH_USE, BagKeys, BagStatus, atomic_path
from monai_mil_ext.utils.probabilities import OUTPUT_NAMES
from monai_mil_ext.utils.remote import as_path

from .page_template import page_template

__all__ = ["case_viewer", "write_index"]

INDEX, VIEWER = "index.html", "viewer/index.html"
PICTURES = ("{}.png", "viewer/thumbnail.jpg", "{}_cells.png")  # of a case, the first that exists
REMARKS = ("option", str(BagKeys.NOTES))  # columns that are shown below the status


def write_index(
    folder: str | os.PathLike[str],
    rows: Sequence[Mapping[str, Any]],
    title: str = "Results",
    class_names: Sequence[str] | None = None,
) -> Path:
    """Write ``index.html``, a table of all cases of a folder of results with links to their pages and pictures.

    Its rows can be sorted and searched. It loads only the pictures, which are beside it, and works from a folder.

    Args:
        folder: folder with ``results.csv`` and a folder ``<case_id>`` for each case, whose page is
            ``viewer/index.html`` or ``<case_id>.html`` and whose picture is ``<case_id>.png``, the thumbnail of the
            viewer of a slide, or the gallery ``<case_id>_cells.png``, where they exist; that of a slide without tissue
            is ``<case_id>_tissue.jpg``.
        rows: rows of ``results.csv``: ``case_id``, ``status`` and, of finished cases, ``predicted_class`` or
            ``prediction`` and ``probability_<c>`` of each class c, or ``value``, ``risk`` or ``survival_<t>`` of a task
            without classes; ``option`` and ``notes`` are shown too.
        title: heading of the page.
        class_names: names of the classes. Of two classes, the probability of the second one is shown.

    Returns:
        Path of the page.
    """
    path, classes = as_path(folder) / INDEX, _classes(rows)
    names = [f"probability of {f'class {c}' if class_names is None else class_names[c]}" for c in classes]
    predicted = next((name for name in ("predicted_class", "prediction") if any(name in row for row in rows)), None)
    values = _values(rows)
    columns = ["case", *(["prediction"] if predicted else []), *names, *(v.replace("_", " ") for v in values), "status"]
    cells = [*([predicted] if predicted else []), *(f"probability_{c}" for c in classes), *values]
    shown = [_row(as_path(folder), row, cells) for row in rows]
    page = page_template("index_page.html").render(title=title, columns=columns, rows=shown, use=RESEARCH_USE)
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def case_viewer(folder: Path, case: str) -> str:
    """Return the address of the viewer of a case relative to the folder of results, or an empty text if it has none."""
    return _address(folder, case, VIEWER)


def _classes(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the classes whose probability is shown: the second one of two, or all."""
    count = 0
    while any(f"probability_{count}" in row for row in rows):
        count += 1
    return [1] if count == 2 else list(range(count))


def _values(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the columns of tasks without classes."""
    names = tuple(OUTPUT_NAMES.values())
    columns = dict.fromkeys(column for row in rows for column in row)
    return [column for column in columns if column.rpartition("_")[0] in names or column in ("value", "risk")]


def _row(folder: Path, row: Mapping[str, Any], cells: Sequence[str]) -> dict[str, Any]:
    case, status = str(row[BagKeys.CASE_ID]), str(row[BagKeys.STATUS])
    is_done = status.split(";", maxsplit=1)[0] == BagStatus.DONE
    names = {BagStatus.DONE: PICTURES, BagStatus.EMPTY: ("{}_tissue.jpg",)}.get(
        BagStatus.DONE if is_done else status, ()
    )
    pictures = [address for name in names if (address := _address(folder, case, name.format(case)))]
    return {
        "case": case,
        "status": status,
        "done": is_done,
        "page": (case_viewer(folder, case) or _address(folder, case, f"{case}.html")) if is_done else "",
        "picture": next(iter(pictures), ""),
        "cells": [_text(row.get(cell, "")) for cell in cells],
        "remarks": [str(row[name]) for name in REMARKS if row.get(name)],
    }


def _address(folder: Path, case: str, name: str) -> str:
    """Return the address of a file of a case relative to the index, or an empty text if it does not exist."""
    is_inside = Path(case).name == case  # else it would lead out of the folder
    return f"{quote(case)}/{quote(name)}" if is_inside and (folder / case / name).is_file() else ""


def _text(value: Any) -> str:
    """Return a probability with three digits, and any other value as it is."""
    try:
        return str(value) if str(value).isdecimal() else f"{float(value):.3f}"
    except ValueError:
        return str(value)
