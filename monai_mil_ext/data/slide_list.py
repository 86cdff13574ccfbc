"""Lists of slides for inference: one file, a folder or a table."""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path
from typing import Any

from monai_mil_ext.utils import BagKeys, check_name

from .bag_folder import SUFFIXES as FEATURE_SUFFIXES
from .scan_table import load_scans
from .table_file import TABLE_SUFFIXES, read_table

__all__ = ["find_slides", "is_feature_file"]

SLIDE_SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif", ".czi")
CASE, SLIDE_MPP = str(BagKeys.CASE_ID), str(BagKeys.SLIDE_MPP)


def find_slides(
    path: str | os.PathLike[str], case_id: str | None = None, root: str | os.PathLike[str] | None = None
) -> list[dict[str, Any]]:
    """Return an item with ``case_id`` and ``image`` for each slide or feature file at ``path``.

    - A file is one item with the given ``case_id``, by default ``"slide"``, since its name may identify a patient.
    - In a folder, slides and feature files are sorted by name, and the name without suffix is the case ID; a name with
      characters other than letters, digits, ``.``, ``_`` and ``-`` becomes ``slide_`` and a hash of it.
    - A table (CSV, TSV, Excel, JSON) is read by :py:func:`load_scans`; its column ``slide_mpp`` is kept.

    Args:
        path: path of the file, folder or table.
        case_id: case ID of a single file.
        root: folder of the slides of a table, by default that of the table.

    Raises:
        FileNotFoundError: when there is nothing at ``path``, or no slide in the folder.
        ValueError: when two files of a folder have the same name without suffix, or the table has errors.

    Example:
        >>> folder = Path("slides")
        >>> folder.mkdir()
        >>> for name in ("b.svs", "a.h5", "Müller.svs", "notes.txt"):
        ...     (folder / name).touch()
        >>> [item["case_id"] for item in find_slides(folder)]
        ['slide_a78429899b', 'a', 'b']
    """
    source = Path(path)
    if source.suffix.lower() in (*TABLE_SUFFIXES, ".json"):
        return _table_items(source, root)
    if source.is_dir() and not is_feature_file(source):
        return _folder_items(source)
    if not source.exists():
        raise FileNotFoundError(f"`path` must be a slide, a folder or a table that exists, got {source.name!r}.")
    case_id = "slide" if case_id is None else case_id
    check_name(case_id=case_id)
    return [{CASE: case_id, "image": str(source.resolve())}]


def is_feature_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a file name is that of a feature file and not of a slide.

    Example:
        >>> is_feature_file("a/b.h5"), is_feature_file("a/b.svs")
        (True, False)
    """
    return Path(path).suffix.lower() in (*FEATURE_SUFFIXES, ".zarr")


def _folder_items(folder: Path) -> list[dict[str, Any]]:
    suffixes = (*SLIDE_SUFFIXES, *FEATURE_SUFFIXES, ".zarr")
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith("."))
    if not files:
        raise FileNotFoundError(f"`path` must be a folder with slides or feature files, got {folder.name!r}.")
    items = {_case_id(file.stem): str(file.resolve()) for file in files}
    if len(items) < len(files):
        raise ValueError(f"`path` must have files of different names, got {len(files)} files of {len(items)} names.")
    return [{CASE: case, "image": image} for case, image in items.items()]


def _case_id(stem: str) -> str:
    try:
        check_name(case_id=stem)
    except ValueError:
        return f"slide_{hashlib.sha256(stem.encode('utf-8', 'surrogateescape')).hexdigest()[:10]}"
    return stem


def _table_items(table: Path, root: str | os.PathLike[str] | None) -> list[dict[str, Any]]:
    items = load_scans(table, root)
    if table.suffix.lower() in TABLE_SUFFIXES:
        for item, row in zip(items, read_table(table).rows, strict=True):
            if row.get(SLIDE_MPP):
                item[SLIDE_MPP] = _positive_number(row[SLIDE_MPP], item[CASE])
    return items


def _positive_number(cell: str, case: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:  # the message shows the cell, so that check_positive_number does not serve
        raise ValueError(f"`{SLIDE_MPP}` must be a positive number, got {cell!r} of {case!r}.")
    return number
