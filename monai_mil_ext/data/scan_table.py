"""A table of scans to answer: what is in them is seen when each is loaded."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_mil_ext.utils import BagKeys, check_name

from .cohort_report import CohortReport, Finding
from .table_file import TABLE_SUFFIXES, read_table

__all__ = ["load_scans"]

CASE = str(BagKeys.CASE_ID)
PATHS = ("image", "reference")
KNOWN = (CASE, str(BagKeys.PATIENT), *PATHS, "series")


def load_scans(
    path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None, keep: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Load the rows of a table of scans, for an inference that goes on when one of them can't be read.

    The table is CSV, TSV or Excel with the columns ``case_id`` and ``image`` (a DICOM folder or a file) and, as you
    have them, ``patient``, ``reference`` and ``series`` (UID, description or number); or JSON as for
    :py:func:`monai_mil_ext.data.load_cohort`. Paths come back absolute; whether there is a scan at them is not asked
    here. Other columns are left out.

    Args:
        path: the table.
        root: folder of the scans, that of the table by default; no path may lead out of it.
        keep: further columns to hand on, as text, where a row has something in them.

    Raises:
        FileNotFoundError: when there is no such table.
        ValueError: when a column is missing, or a case id is missing, impossible or not alone; all are listed.
    """
    file = Path(path)
    folder = Path(root).resolve() if root is not None else file.parent.resolve()
    known = (*KNOWN, *keep)
    rows = _rows(file, known)
    faults = [Finding(place, text) for place, row in rows for text in _faults(row, folder)]
    counts = Counter(row.get(CASE) for _, row in rows if row.get(CASE))
    faults += [Finding("", f"`case_id` {case!r} stands there {n} times") for case, n in counts.items() if n > 1]
    items = [] if faults else [_item(row, folder, known) for _, row in rows]
    CohortReport(file.name, len(rows), items, faults).raise_faults()
    return items


def _rows(file: Path, known: Sequence[str]) -> list[tuple[str, Mapping[str, Any]]]:
    if file.suffix.lower() in TABLE_SUFFIXES:
        table = read_table(file)
        absent = [name for name in (CASE, "image") if name not in table.columns]
        if absent:
            raise ValueError(f"`path` must have the columns {CASE!r} and 'image', got {list(table.columns)}.")
        return [(f"row {number}", row) for number, row in zip(table.numbers, table.rows, strict=True)]
    if not file.is_file():
        raise FileNotFoundError(f"`path` must be a table of scans that exists, got {file.name!r}.")
    try:
        scans = json.loads(file.read_text(encoding="utf-8"))["scans"]
        return [(f"scan {i}", {key: str(scan[key]) for key in known if key in scan}) for i, scan in enumerate(scans)]
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f'`path` must be .csv, .tsv, .xlsx, or JSON of the form {{"scans": [{{...}}, ...]}}, got {file.name!r}.'
        ) from None


def _faults(row: Mapping[str, Any], folder: Path) -> Sequence[str]:
    faults = []
    try:
        check_name(case_id=row.get(CASE, ""))
    except ValueError as error:
        faults.append(str(error))
    if not row.get("image"):
        faults.append("`image` must be given, got an empty cell")
    for key in PATHS:
        if row.get(key) and not (folder / row[key]).resolve().is_relative_to(folder):
            faults.append(f"`{key}` must lie in the folder of the scans, got a path that leads out of it")
    return faults


def _item(row: Mapping[str, Any], folder: Path, known: Sequence[str]) -> dict[str, Any]:
    item = {key: str(row[key]) for key in known if row.get(key)}
    return {**item, **{key: str((folder / item[key]).resolve()) for key in PATHS if key in item}}
