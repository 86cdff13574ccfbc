"""Tables of scans for inference; the scans themselves are checked when they are loaded."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_mil_ext.utils import BagKeys, check_name

from .cohort_report import CohortReport, Issue
from .table_file import TABLE_SUFFIXES, read_table

__all__ = ["load_scans"]

CASE = str(BagKeys.CASE_ID)
PATHS = ("image", "reference")
COLUMNS = (CASE, str(BagKeys.PATIENT), *PATHS, "series")


def load_scans(
    path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None, keep: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Load the rows of a table of scans, for inference that continues when a scan can't be read.

    The table is CSV, TSV or Excel with the columns ``case_id`` and ``image`` (a DICOM folder or a file) and, if
    available, ``patient``, ``reference`` and ``series`` (UID, description or number); or JSON as for
    :py:func:`monai_mil_ext.data.load_cohort`. The items have absolute paths, which are not checked for existence. Other
    columns are ignored.

    Args:
        path: the table.
        root: folder of the scans, by default that of the table; no path may lead out of it.
        keep: further columns to keep, as text, if not empty.

    Raises:
        FileNotFoundError: when there is no such table.
        ValueError: when a column is missing, or a case id is missing, invalid or repeated; all errors are listed.
    """
    file = Path(path)
    folder = Path(root).resolve() if root is not None else file.parent.resolve()
    columns = (*COLUMNS, *keep)
    rows = _rows(file, columns)
    errors = [Issue(location, text) for location, row in rows for text in _row_errors(row, folder)]
    counts = Counter(row.get(CASE) for _, row in rows if row.get(CASE))
    errors += [Issue("", f"`case_id` must be unique, got {case!r} {n} times") for case, n in counts.items() if n > 1]
    items = [] if errors else [_item(row, folder, columns) for _, row in rows]
    CohortReport(file.name, len(rows), items, errors).raise_if_errors()
    return items


def _rows(file: Path, columns: Sequence[str]) -> list[tuple[str, Mapping[str, Any]]]:
    if file.suffix.lower() in TABLE_SUFFIXES:
        table = read_table(file)
        missing = [name for name in (CASE, "image") if name not in table.columns]
        if missing:
            raise ValueError(f"`path` must have the columns {CASE!r} and 'image', got {list(table.columns)}.")
        return [(f"row {number}", row) for number, row in zip(table.numbers, table.rows, strict=True)]
    if not file.is_file():
        raise FileNotFoundError(f"`path` must be a table of scans that exists, got {file.name!r}.")
    try:
        scans = json.loads(file.read_text(encoding="utf-8"))["scans"]
        return [(f"scan {i}", {key: str(scan[key]) for key in columns if key in scan}) for i, scan in enumerate(scans)]
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f'`path` must be .csv, .tsv, .xlsx, or JSON of the form {{"scans": [{{...}}, ...]}}, got {file.name!r}.'
        ) from None


def _row_errors(row: Mapping[str, Any], folder: Path) -> Sequence[str]:
    errors = []
    try:
        check_name(case_id=row.get(CASE, ""))
    except ValueError as error:
        errors.append(str(error))
    if not row.get("image"):
        errors.append("`image` must be given, got an empty cell")
    for key in PATHS:
        if row.get(key) and not (folder / row[key]).resolve().is_relative_to(folder):
            errors.append(f"`{key}` must lie in the folder of the scans, got a path that leads out of it")
    return errors


def _item(row: Mapping[str, Any], folder: Path, columns: Sequence[str]) -> dict[str, Any]:
    item = {key: str(row[key]) for key in columns if row.get(key)}
    return {**item, **{key: str((folder / item[key]).resolve()) for key in PATHS if key in item}}
