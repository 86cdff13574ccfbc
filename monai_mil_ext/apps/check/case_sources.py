"""Cases of a cohort as a table, a JSON list or a folder names them, each with what is wrong with its row."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from monai_mil_ext.data.bags.bag_folder import BagFolder, resolve_inside
from monai_mil_ext.data.bags.folder_layout import FEATURE_SUFFIXES
from monai_mil_ext.data.cohorts import CohortColumns, list_bags, list_scans, list_slides
from monai_mil_ext.data.cohorts.class_labels import label_text
from monai_mil_ext.data.cohorts.slide_lists import SLIDE_SUFFIXES
from monai_mil_ext.data.cohorts.table_file import TABLE_SUFFIXES, json_rows
from monai_mil_ext.data.cohorts.tables.column_names import NamedTable, find_header, open_table
from monai_mil_ext.data.cohorts.tables.study_table import label_columns, survival_pairs
from monai_mil_ext.utils import BagKeys, check_local, check_name, resolve_path
from monai_mil_ext.utils.bag_items import case_id_of
from monai_mil_ext.utils.privacy import describe_case_error
from monai_mil_ext.utils.remote import ObjectPath, is_remote

from .check_settings import CheckedCase, Problem

__all__ = ["NamedCases", "read_cases"]

CASE, PATIENT, ERROR = str(BagKeys.CASE_ID), str(BagKeys.PATIENT), str(BagKeys.INPUT_ERROR)
# further columns that mean something, each by its own name
MORE = ("reference", str(BagKeys.SERIES), str(BagKeys.STACK), str(BagKeys.SLIDE_MPP), "magnification")
IS_NO_TABLE = '`path` must be .csv, .tsv, .xlsx, a folder, or JSON of the form {"scans": [{...}, ...]}, got another.'
SUFFIXES = {
    "scans": (),
    "slides": (*SLIDE_SUFFIXES, *FEATURE_SUFFIXES),
    "bags": FEATURE_SUFFIXES,
}
PREFERRED = {"slides": SLIDE_SUFFIXES, "features": FEATURE_SUFFIXES}
FOLDERS: dict[str, Callable[..., list[dict[str, Any]]]] = {
    "scans": list_scans,
    "slides": list_slides,
    "bags": list_bags,
}


class NamedCases(NamedTuple):
    """Cases of a cohort, what is wrong with its columns, and what they were taken for."""

    cases: list[CheckedCase]
    problems: list[Problem]
    notes: list[Problem]


def read_cases(
    path: Path | Sequence[Path],
    kind: str,
    columns: CohortColumns | None = None,
    root: str | os.PathLike[str] | None = None,
    task: str | None = None,
    prefer: str = "features",
) -> NamedCases:
    """Read the cases of a table (CSV, TSV, Excel), a JSON list or a folder, and what is wrong with the whole.

    The columns are found as those of a study are, see :py:func:`monai_mil_ext.data.study_columns`.

    Args:
        path: the table, list or folder; or a list with a table of the files and one of their patients.
        kind: ``"scans"``, ``"slides"`` or ``"bags"``.
        columns: names of the columns, as far as they are not the usual ones.
        root: folder of the files, by default that of the table.
        task: the task, if it is not to be found from the columns.
        prefer: ``"slides"`` or ``"features"``, which are taken where a slide and a feature file have the same name.

    Raises:
        FileNotFoundError: when there is no such table or folder.
        ValueError: when it is no table.
    """
    paths = [path] if isinstance(path, Path) else list(path)
    for file in paths:
        if not is_remote(file):
            check_local(path=file)
    if len(paths) == 1 and paths[0].is_dir():
        items = FOLDERS[kind](paths[0])
        return NamedCases([_listed(item, f"file {i}") for i, item in enumerate(items, 1)], [], [])
    named = _open(paths, columns or CohortColumns())
    found, problems, notes = _find_columns(named, task)
    table_dir = paths[0].parent
    folder = resolve_path(table_dir if root is None else root, "root")
    if not folder.is_dir():
        raise FileNotFoundError("`root` must be a folder that exists, got none.")
    bags = BagFolder(folder, table_dir, SUFFIXES[kind], PREFERRED[prefer]) if kind != "scans" else None
    places = (folder, resolve_path(table_dir), bags)
    return NamedCases([_case(place, row, found, places) for place, row in _rows(paths, named)], problems, notes)


def _open(paths: Sequence[Path], columns: CohortColumns) -> NamedTable:
    is_json = len(paths) == 1 and paths[0].suffix.lower() not in TABLE_SUFFIXES
    if is_json and not paths[0].is_file():
        raise FileNotFoundError("`path` must be a table, a JSON list or a folder that exists, got none.")
    if is_json and json_rows(paths[0]) is None:
        raise ValueError(IS_NO_TABLE)
    return open_table(paths, columns)


def _rows(paths: Sequence[Path], named: NamedTable) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the rows, each with its place; those of JSON have values of any type."""
    if len(paths) == 1 and paths[0].suffix.lower() not in TABLE_SUFFIXES:
        return [(f"scan {i}", row) for i, row in enumerate(json_rows(paths[0]) or [])]
    return [(f"row {n}", row) for n, row in zip(named.table.numbers, named.table.rows, strict=True)]


def _find_columns(
    named: NamedTable, task: str | None
) -> tuple[dict[str, str | list[str]], list[Problem], list[Problem]]:
    """Return the column of each meaning, the problems of those that do not exist, and notes."""
    headers, columns, notes = named.table.columns, named.columns, list(named.notes)
    errors = list(named.errors)
    try:
        columns, more = label_columns(named, task)
        notes += more
    except ValueError as error:
        if task is not None or survival_pairs(headers):
            errors.append(str(error))
    if columns.label == "label" not in headers:
        columns = replace(columns, label=None)
    has_files = columns.bag in headers or columns.bag != "bag"
    errors += (columns if has_files else replace(columns, bag=headers[0])).missing(headers)
    problems = [Problem(error.removesuffix(".")) for error in errors]
    if not has_files:
        known = ", ".join(map(repr, headers))
        problems.append(Problem(f"a column must name the files, got {known}", option="--columns#bag NAME"))
    found: dict[str, str | Sequence[str] | None] = {"image": columns.bag, CASE: columns.case, PATIENT: columns.patient}
    found |= {key: getattr(columns, key) for key in ("label", "time", "event", "site", "split")}
    found |= {key: find_header(key, headers) for key in MORE}
    used = {key: name if isinstance(name, str) else list(name) for key, name in found.items() if name is not None}
    return used, problems, [Problem(note) for note in notes]


def _case(
    place: str,
    row: Mapping[str, Any],
    columns: Mapping[str, str | list[str]],
    places: tuple[Path, Path, BagFolder | None],
) -> CheckedCase:
    """Return the case of a row."""
    item = {
        key: ["" if row.get(name) is None else row[name] for name in column]
        if isinstance(column, list)
        else row.get(column, "")
        for key, column in columns.items()
    }
    case = CheckedCase({key: value for key, value in item.items() if value not in ("", None)}, place)
    name = item.get("image", "")
    for key in (CASE, PATIENT, "site", "split"):
        if not isinstance(case.item.get(key, ""), str):  # a number of JSON; text stays as it is, so that 007 is not 7
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
        if bags is not None and (isinstance(path, ObjectPath) or not path.exists()):
            path = bags.find(value)  # which has asked an object store for all names once
        elif not path.exists():
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
