"""Cases of a cohort as a table, a JSON list or a folder names them, each with what is wrong with its row."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_mil_ext.data.bags.bag_folder import BagFolder, resolve_inside
from monai_mil_ext.data.bags.folder_layout import FEATURE_SUFFIXES
from monai_mil_ext.data.cohorts import list_bags, list_scans, list_slides
from monai_mil_ext.data.cohorts.class_labels import label_text
from monai_mil_ext.data.cohorts.slide_lists import SLIDE_SUFFIXES
from monai_mil_ext.data.cohorts.table_file import TABLE_SUFFIXES, read_table
from monai_mil_ext.utils import BagKeys, check_local, check_name, load_json, resolve_path
from monai_mil_ext.utils.bag_items import case_id_of
from monai_mil_ext.utils.privacy import describe_case_error

from .check_settings import CheckedCase, Problem

__all__ = ["read_cases"]

CASE, PATIENT, ERROR = str(BagKeys.CASE_ID), str(BagKeys.PATIENT), str(BagKeys.INPUT_ERROR)
LABEL = "label"
# names of the columns, the first one that exists is taken; upper case does not matter
COLUMNS: dict[str, tuple[str, ...]] = {
    CASE: (CASE, "case"),
    PATIENT: (PATIENT, "patient_id"),
    "image": ("image", "bag", "slide_id", "filename", "wsi", "bag_name", "slide"),
    "reference": ("reference",),
    LABEL: (LABEL,),
    "time": ("time",),
    "event": ("event",),
    "site": ("site",),
    "split": ("split",),
    **{name: (name,) for name in (str(BagKeys.SERIES), str(BagKeys.STACK), str(BagKeys.SLIDE_MPP), "magnification")},
}
CLAM = "slide_id"  # in whose tables case_id is the patient
SUFFIXES = {
    "scans": (),
    "slides": (*SLIDE_SUFFIXES, *FEATURE_SUFFIXES),
    "bags": FEATURE_SUFFIXES,
}
FOLDERS: dict[str, Callable[..., list[dict[str, Any]]]] = {
    "scans": list_scans,
    "slides": list_slides,
    "bags": list_bags,
}
Columns = Mapping[str, str | Sequence[str] | None]


def read_cases(
    path: Path | Sequence[Path], kind: str, columns: Columns | None = None, root: str | os.PathLike[str] | None = None
) -> tuple[list[CheckedCase], list[Problem]]:
    """Read the cases of a table (CSV, TSV, Excel), a JSON list or a folder, and what is wrong with the whole.

    Args:
        path: the table, list or folder; or a list with a table of the files and one of their patients.
        kind: ``"scans"``, ``"slides"`` or ``"bags"``.
        columns: name of the column, or of several for ``label``, by what it means; others are found by their names.
        root: folder of the files, by default that of the table.

    Raises:
        FileNotFoundError: when there is no such table or folder.
        ValueError: when it is no table.
    """
    paths = [path] if isinstance(path, Path) else list(path)
    for file in paths:
        check_local(path=file)
    if len(paths) == 1 and paths[0].is_dir():
        items = FOLDERS[kind](paths[0])
        return [_listed(item, f"file {i}") for i, item in enumerate(items, 1)], []
    rows, names = _rows(paths[0]) if len(paths) == 1 else _joined_rows(paths, columns or {})
    found, problems = _find_columns(names, columns or {})
    table_dir = paths[0].parent
    folder = resolve_path(table_dir if root is None else root, "root")
    if not folder.is_dir():
        raise FileNotFoundError("`root` must be a folder that exists, got none.")
    bags = BagFolder(folder, table_dir, SUFFIXES[kind]) if kind != "scans" else None
    places = (folder, resolve_path(table_dir), bags)
    return [_case(place, row, found, places) for place, row in rows], problems


def _rows(path: Path) -> tuple[list[tuple[str, dict[str, Any]]], list[str]]:
    """Return the rows, each with its place, and the names of all columns."""
    if path.suffix.lower() in TABLE_SUFFIXES:
        table = read_table(path)
        return [(f"row {n}", dict(row)) for n, row in zip(table.numbers, table.rows, strict=True)], table.columns
    if not path.is_file():
        raise FileNotFoundError("`path` must be a table, a JSON list or a folder that exists, got none.")
    try:
        content = load_json(path)
        scans = content["scans"] if isinstance(content, dict) else content
    except (ValueError, KeyError):
        scans = None
    if not isinstance(scans, list) or not scans or not all(isinstance(scan, dict) for scan in scans):
        text = '`path` must be .csv, .tsv, .xlsx, a folder, or JSON of the form {"scans": [{...}, ...]}, got another.'
        raise ValueError(text)
    rows = [{key: value for key, value in scan.items() if value is not None} for scan in scans]
    return [(f"scan {i}", row) for i, row in enumerate(rows)], list(dict.fromkeys(key for row in rows for key in row))


def _joined_rows(paths: Sequence[Path], columns: Columns) -> tuple[list[tuple[str, dict[str, Any]]], list[str]]:
    """Return the rows of a table of files, with the columns of those of their patients, such as STAMP's."""
    tables = [read_table(path) for path in paths]
    names = list(dict.fromkeys(name for table in tables for name in table.columns))
    image, patient = (str(columns.get(key) or _usual_column(names, COLUMNS[key])) for key in ("image", PATIENT))
    files = [table for table in tables if image in table.columns]
    if len(files) != 1 or any(patient not in table.columns for table in tables):
        text = "tables must have a column of the patient, and one of them a column of the files (--columns#image NAME)"
        raise ValueError(f"{text}, got {', '.join(map(repr, names))}.")
    about: dict[str, dict[str, str]] = {}
    for row in (row for table in tables if table is not files[0] for row in table.rows):
        about.setdefault(row[patient], {}).update(row)
    joined = [{**about.get(row[patient], {}), **row} for row in files[0].rows]
    return [(f"row {n}", dict(row)) for n, row in zip(files[0].numbers, joined, strict=True)], names


def _find_columns(names: Sequence[str], given: Columns) -> tuple[dict[str, str | list[str]], list[Problem]]:
    """Return the column of each meaning, and the problems of those that do not exist."""
    chosen = {meaning: [name] if isinstance(name, str) else list(name) for meaning, name in given.items() if name}
    known = ", ".join(map(repr, names))
    lost = [name for several in chosen.values() for name in several if name not in names]
    problems = [Problem(f"column {name!r} must exist, got {known}") for name in lost]
    found: dict[str, str | list[str]] = {}
    for meaning, aliases in COLUMNS.items():
        several = chosen.get(meaning)
        column = _usual_column(names, aliases) if several is None else several if len(several) > 1 else several[0]
        if column is not None and not set(several or ()) & set(lost):
            found[meaning] = column
    if found.get("image") == CLAM and CASE in found and PATIENT not in found:
        found[PATIENT] = found.pop(CASE)
    if "image" not in found and "image" not in chosen:
        problems.append(Problem(f"a column must name the files, got {known}", option="--columns#image NAME"))
    return found, problems


def _usual_column(names: Sequence[str], aliases: Sequence[str]) -> str | None:
    """Return the first column with one of several names, or else with one in another case."""
    exact = next((alias for alias in aliases if alias in names), None)
    return exact or next((name for alias in aliases for name in names if name.lower() == alias), None)


def _case(
    place: str,
    row: Mapping[str, Any],
    columns: Mapping[str, str | list[str]],
    places: tuple[Path, Path, BagFolder | None],
) -> CheckedCase:
    """Return the case of a row."""
    item = {
        key: [row.get(name, "") for name in column] if isinstance(column, list) else row.get(column, "")
        for key, column in columns.items()
    }
    case = CheckedCase({key: value for key, value in item.items() if value not in ("", None)}, place)
    name = item.get("image", "")
    for key in (CASE, PATIENT, "site", "split"):
        if key in case.item:
            case.item[key] = label_text(case.item[key])
    _resolve(case, "image", name, places)
    if case.item.get("reference"):
        _resolve(case, "reference", case.item["reference"], (*places[:2], None))
    if CASE not in case.item and name:
        last = Path(str(name).replace("\\", "/")).name
        case.item[CASE] = case_id_of(Path(last).stem.removesuffix(".nii"), "case")
    for key in (CASE, PATIENT):
        if key in case.item:
            _check_name(case, key)
    return case


def _resolve(case: CheckedCase, key: str, value: Any, places: tuple[Path, Path, BagFolder | None]) -> None:
    """Replace the name of a file by its path, or remove it and add the problem."""
    case.item.pop(key, None)
    root, table_dir, bags = places
    try:
        if not isinstance(value, str) or not value:
            raise ValueError("must be given, got an empty cell" if value in ("", None) else "must be a path")
        path = resolve_inside(value, root, table_dir)
        if not path.exists() and bags is not None:
            path = bags.find(value)
        if not path.exists():
            raise ValueError("must exist, got a path without a file")
        case.item[key] = str(path)
    except (ValueError, OSError, RuntimeError) as error:  # of the system, for a name that is too long or a loop
        text = str(error) if isinstance(error, ValueError) else f"must be a path, got {type(error).__name__}"
        option = "--root /" if "--root /" in text else ""
        case.add(f"`{key}` {describe_case_error(ValueError(text), {'image': str(value)})}", option)


def _check_name(case: CheckedCase, key: str) -> None:
    try:
        check_name(**{key: case.item[key]})
    except ValueError as error:
        case.item[key] = ""
        case.add(str(error))


def _listed(item: Mapping[str, Any], place: str) -> CheckedCase:
    """Return the case of an item of a folder."""
    case = CheckedCase({key: value for key, value in item.items() if key != ERROR}, place)
    if item.get(ERROR):
        case.add(str(item[ERROR]))
    return case
