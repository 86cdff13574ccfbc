"""Lists of scans for inference, from a table or a folder, and items of single files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai_mil_ext.data.bags.bag_folder import resolve_inside
from monai_mil_ext.data.bags.folder_layout import FEATURE_SUFFIXES
from monai_mil_ext.data.features.identities import item_identity
from monai_mil_ext.utils import BagKeys, check_local, check_name, resolve_path
from monai_mil_ext.utils.remote import as_path, exists, is_remote, isdir, isfile

from .check_report import CohortReport, Issue
from .class_labels import label_text
from .columns import CohortColumns
from .scan_folder import scans_of_folder
from .table_file import TABLE_SUFFIXES, Table, json_rows, read_table
from .tables.column_names import NamedTable, find_header, name_columns

__all__ = [
    "check_scan_list",
    "is_feature_file",
    "list_scans",
    "single_case",
]


CASE = str(BagKeys.CASE_ID)
PATIENT = str(BagKeys.PATIENT)
IDS = (CASE, PATIENT)
PATHS = ("image", "reference")
GROUPS = (str(BagKeys.SERIES), str(BagKeys.STACK))
COLUMNS = (*IDS, *PATHS, *GROUPS)
Rows = list[tuple[str, dict[str, Any]]]


def check_scan_list(
    path: Path, root: str | os.PathLike[str] | None = None, columns: CohortColumns | None = None
) -> CohortReport:
    """Check a table of scans, or JSON of the form ``{"scans": [...]}``; see :py:func:`monai_mil_ext.data.check_cohort`.

    Args:
        path: the table.
        root: folder of the scans, by default that of the table.
        columns: meaning of the columns, for labels that are read here; ``None`` leaves them as they are written.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it has another form.
    """
    if not is_remote(path):
        check_local(path=path)
    rows, named = _read_rows(path, columns)
    folder = resolve_path(path.parent if root is None else root, "root")
    errors = _read_values(rows, named, has_labels=columns is not None)
    resolved = [_resolve_paths(scan, folder, resolve_path(path.parent)) for _, scan in rows]
    for (place, scan), (item, wrong) in zip(rows, resolved, strict=True):
        texts = [*_id_errors(scan), *wrong, *_absent(item, wrong)]
        errors += [Issue(place, text, _case_name(scan, place)) for text in texts]
    errors += _repeated_ids(rows)
    invalid = {error.location for error in errors}
    items = [item for (place, _), (item, _) in zip(rows, resolved, strict=True) if place not in invalid]
    return CohortReport(path.name, len(rows), items, errors, notes=[Issue("row 1", text) for text in named.notes])


def _read_rows(file: Path, columns: CohortColumns | None = None) -> tuple[Rows, NamedTable]:
    """Return the scans of a table or of JSON, each with its place, without empty cells and values that are null.

    Their keys are those of items; the named table has the cells as they are.
    """
    if file.suffix.lower() in TABLE_SUFFIXES:
        table = read_table(file)
        rows = [(f"row {number}", row) for number, row in zip(table.numbers, table.rows, strict=True)]
        rows = [(place, {key: cell for key, cell in row.items() if cell}) for place, row in rows]
    else:
        rows = [(f"scan {i}", scan) for i, scan in enumerate(_read_scans(file))]
        headers = list(dict.fromkeys(key for _, row in rows for key in row))
        cells = [{name: label_text(row.get(name)) for name in headers} for _, row in rows]
        table = Table(headers, cells, list(range(len(rows))))
    columns = columns or CohortColumns()
    if columns.bag == "bag" and find_header("image", table.columns):
        columns = replace(columns, bag="image")
    named = name_columns(table, columns)
    found = {CASE: named.columns.case, "image": named.columns.bag}
    if file.suffix.lower() in TABLE_SUFFIXES and not set(found.values()) <= set(table.columns):
        raise ValueError(f"`path` must have the columns {CASE!r} and 'image', got {list(table.columns)}.")
    found |= {key: find_header(key, table.columns) for key in ("reference", *GROUPS, "label")}
    if named.columns.patient is not None:
        found[PATIENT] = named.columns.patient
    names = {header: key for key, header in found.items() if header is not None}
    return [(place, {names.get(key, key): value for key, value in row.items()}) for place, row in rows], named


def _read_values(rows: Rows, named: NamedTable, has_labels: bool) -> list[Issue]:
    """Add patients, groups and, if wanted, labels to the scans, and return the errors."""
    columns = named.columns if has_labels else replace(named.columns, label=None, time=None, event=None, keep=())
    texts = [*named.errors, *replace(columns, bag="image", case=None).missing([*named.table.columns, "image"])]
    words = "" if texts else columns.words(named.table.rows)
    errors = [Issue("", text) for text in [*texts, words] if text]
    columns = replace(columns, label=None) if words else columns
    for (place, scan), cells in zip(rows, named.table.rows, strict=True):
        if columns.patient is None and CASE in scan:
            scan[PATIENT] = scan[CASE]
        values, wrong = ({}, []) if texts else columns.values(cells)
        scan.update(values)
        errors += [Issue(place, text, _case_name(scan, place)) for text in wrong]
    return errors


def _read_scans(file: Path) -> list[dict[str, Any]]:
    if not isfile(file):
        raise FileNotFoundError(f"`path` must be a cohort file that exists, got {file.name!r}.")
    scans = _read_json(file)
    if scans is None:
        raise ValueError(
            f'`path` must be .csv, .tsv, .xlsx, or JSON of the form {{"scans": [{{...}}, ...]}}, got {file.name!r}.'
        )
    return scans


def _read_json(path: Path) -> list[dict[str, Any]] | None:
    """Return the scans of a JSON file without those of their values that are null, or None for another form."""
    scans = json_rows(path)
    return scans and [{key: _as_text(key, value) for key, value in scan.items() if value is not None} for scan in scans]


def _as_text(key: str, value: Any) -> Any:
    """Return an ID that JSON has as a number as the text of a cell."""
    return (
        label_text(value) if key in IDS and isinstance(value, (int, float)) and not isinstance(value, bool) else value
    )


def _resolve_paths(scan: Mapping[str, Any], root: Path, table_dir: Path) -> tuple[dict[str, Any], list[str]]:
    """Return a scan with absolute paths, and the errors of those that are none or lead out of ``root``."""
    item, errors = dict(scan), []
    for key in PATHS:
        if key not in scan:
            continue
        if not isinstance(scan[key], str) or not scan[key]:
            errors.append(f"`{key}` must be a path, got {scan[key]!r}")
            continue
        try:
            item[key] = str(resolve_inside(scan[key], root, table_dir))
        except ValueError as error:
            errors.append(f"`{key}` {error}")
    return item, errors


def _absent(item: Mapping[str, Any], wrong: Sequence[str]) -> list[str]:
    """Return the errors of paths without a file, if all paths could be resolved."""
    absent = [key for key in PATHS if not wrong and key in item and not exists(item[key])]
    return [f"`{key}` must exist, got a path without a file" for key in absent]


def _case_name(scan: Mapping[str, Any], place: str) -> str:
    try:
        check_name(case_id=scan.get(CASE, ""))
    except ValueError:
        return place
    return str(scan[CASE])


def _id_errors(scan: Mapping[str, Any]) -> list[str]:
    problems = [f"no `{key}`" for key in (*IDS, "image") if key not in scan]
    for key in IDS:
        if key in scan:
            problems += _errors_of(check_name, key, scan[key])
    return problems


def _errors_of(check: Callable[..., None], key: str, value: Any) -> list[str]:
    try:
        check(**{key: value})
    except ValueError as error:
        return [str(error)]
    return []


def list_scans(
    path: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    keep: Sequence[str] = (),
    series: str | int | None = None,
    stack: str | int | None = None,
) -> list[dict[str, Any]]:
    """List the scans of a table or a folder, for inference that continues when a scan can't be read.

    The table is CSV, TSV or Excel with the columns ``case_id`` and ``image`` (a DICOM folder or a file) and, if
    available, ``patient``, ``reference``, ``series`` (UID, description or number) and ``stack``; or JSON as for
    :py:func:`monai_mil_ext.data.load_cohort`. The items have absolute paths, which are not checked for existence. Other
    columns are ignored. A row whose path is empty, an address or leads out of ``root`` has ``input_error`` instead, the
    reason for which :py:class:`monai_mil_ext.transforms.LoadOrStatus` calls it unreadable.

    A folder has one scan for each volume, sub-folder and DICOM series in it: see
    :py:func:`monai_mil_ext.data.cohorts.scan_folder.scans_of_folder`.

    Args:
        path: the table or the folder.
        root: folder of the scans of a table, by default that of the table; no path may lead out of it. A path is
            relative to it, or to the table.
        keep: further columns to keep, as text, if not empty.
        series: series of the scans that state none.
        stack: stack of the scans that state none.

    Raises:
        FileNotFoundError: when there is no such table or folder, or no scan in the folder.
        ValueError: when a column is missing, or a case id is missing, invalid or repeated; all errors are listed.
    """
    file = as_path(path)
    if not is_remote(file):
        check_local(path=file)
    chosen = {str(BagKeys.SERIES): series, str(BagKeys.STACK): stack}
    chosen = {key: str(value) for key, value in chosen.items() if value is not None}
    if isdir(file):
        return [chosen | item for item in scans_of_folder(file)]
    rows, _ = _read_rows(file)
    errors = [Issue(place, text) for place, row in rows for text in _row_errors(row)] + _repeated_ids(rows)
    folder = resolve_path(file.parent if root is None else root, "root")
    items = [] if errors else [_item(row, folder, resolve_path(file.parent), (*COLUMNS, *keep)) for _, row in rows]
    CohortReport(file.name, len(rows), items, errors).raise_if_errors()
    return [chosen | item for item in items]


def _repeated_ids(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Issue]:
    places: dict[str, list[str]] = {}
    for place, row in rows:
        if row.get(CASE):
            places.setdefault(str(row[CASE]), []).append(place)
    repeated = {case: named for case, named in places.items() if len(named) > 1}
    return [
        Issue("", f"`case_id` must be unique, got {case!r} {len(named)} times: {', '.join(named)}")
        for case, named in repeated.items()
    ]


def _row_errors(row: Mapping[str, Any]) -> list[str]:
    known = {key: value for key, value in row.items() if key in (*COLUMNS, str(BagKeys.SLIDE_MPP))}
    wrong = [key for key, value in known.items() if isinstance(value, (list, dict, bool))]
    if wrong:
        return [f"`{key}` must be text or a number, got {row[key]!r}" for key in wrong]
    return _errors_of(check_name, CASE, str(row.get(CASE, "")))


def _item(row: Mapping[str, Any], root: Path, table_dir: Path, columns: Sequence[str]) -> dict[str, Any]:
    item, errors = _resolve_paths({key: str(row[key]) for key in columns if key in row}, root, table_dir)
    if not item.get("image"):
        errors = ["`image` must be given, got an empty cell"]
    return {**item, "image": "", str(BagKeys.INPUT_ERROR): "; ".join(errors)} if errors else item


def single_case(
    path: str | os.PathLike[str],
    case_id: str | None = None,
    series: str | None = None,
    reference: str | os.PathLike[str] | None = None,
    stack: str | int | None = None,
) -> dict[str, Any]:
    """Return the item of one scan, slide or feature file.

    Without ``case_id``, the case ID is ``case-`` and 12 digits of the :py:func:`monai_mil_ext.data.item_identity`: the
    same for the same content, another for another file, and without the file's name, which may identify a patient. A
    file that can't be read, which has no results either, is ``case-unreadable``.

    Args:
        path: path of the file or folder.
        case_id: case ID; None derives one.
        series: UID, description or number of the series, if a folder has several.
        reference: path of the reference mask.
        stack: number or name of the stack, if the series has several.

    Raises:
        ValueError: when ``case_id`` can't be a file name.

    Example:
        >>> _ = Path("Jane_Doe.svs").write_bytes(b"slide")
        >>> single_case("Jane_Doe.svs", "c7")["case_id"], single_case("Jane_Doe.svs")["case_id"][:5]
        ('c7', 'case-')
    """
    choice = {str(BagKeys.SERIES): series, str(BagKeys.STACK): stack}
    image = {
        "image": str(resolve_path(path)),
        **{key: str(value) for key, value in choice.items() if value is not None},
    }
    if case_id is None:
        case_id = f"case-{(item_identity(image) or 'unreadable')[:12]}"
    case_id = str(case_id)
    check_name(case_id=case_id)
    return {CASE: case_id, **image, **({} if reference is None else {"reference": str(resolve_path(reference))})}


def is_feature_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a file name is that of a feature file and not of a slide.

    Example:
        >>> is_feature_file("a/b.h5"), is_feature_file("a/b.svs")
        (True, False)
    """
    return Path(path).suffix.lower() in FEATURE_SUFFIXES
