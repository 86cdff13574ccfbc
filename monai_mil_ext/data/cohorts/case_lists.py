"""Lists of scans and slides for inference, from a file, a folder or a table."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_mil_ext.data.bags.bag_folder import SUFFIXES as FEATURE_SUFFIXES
from monai_mil_ext.data.features.identities import item_identity
from monai_mil_ext.utils import BagKeys, check_case_ids, check_local, check_name, load_json, resolve_path

from .check_report import CohortReport, Issue
from .slide_pairs import COLUMN as SLIDE
from .slide_pairs import pair_slides
from .table_file import TABLE_SUFFIXES, read_table

__all__ = [
    "check_scan_list",
    "is_feature_file",
    "list_bags",
    "list_scans",
    "list_slides",
    "single_case",
]


CASE, SLIDE_MPP = str(BagKeys.CASE_ID), str(BagKeys.SLIDE_MPP)
IDS = (CASE, str(BagKeys.PATIENT))
PATHS = ("image", "reference")
COLUMNS = (*IDS, *PATHS, "series")


def check_scan_list(path: Path) -> CohortReport:
    """Check a file of the form ``{"scans": [...]}``; see :py:func:`monai_mil_ext.data.check_cohort`.

    Raises:
        FileNotFoundError: when there is no such JSON file.
        ValueError: when it has another form.
    """
    check_local(path=path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"`path` must be a cohort file that exists, got {path.name!r}.")
    scans = _read_scans(path)
    if scans is None:
        raise ValueError(f'`path` must be JSON of the form {{"scans": [{{...}}, ...]}}, got {path.name!r}.')
    root = path.parent
    errors = [
        Issue(f"scan {i}", text, _case_name(scan, i)) for i, scan in enumerate(scans) for text in _problems(scan, root)
    ]
    errors += _repeated_ids([(f"scan {i}", scan) for i, scan in enumerate(scans)])
    invalid = {error.location for error in errors}
    items = [_resolve_paths(scan, root) for i, scan in enumerate(scans) if f"scan {i}" not in invalid]
    return CohortReport(path.name, len(scans), items, errors)


def _read_scans(path: Path) -> list[dict[str, Any]] | None:
    """Return the scans of a JSON file without those of their values that are null, or None for another form."""
    try:
        scans = load_json(path)["scans"]
    except (ValueError, KeyError, TypeError):
        return None
    if not isinstance(scans, list) or not scans or not all(isinstance(scan, dict) for scan in scans):
        return None
    return [{key: value for key, value in scan.items() if value is not None} for scan in scans]


def _resolve_paths(scan: Mapping[str, Any], root: Path) -> dict[str, Any]:
    return {**scan, **{key: str(resolve_path(root / scan[key])) for key in PATHS if key in scan}}


def _case_name(scan: Mapping[str, Any], number: int) -> str:
    try:
        check_name(case_id=scan.get(CASE, ""))
    except ValueError:
        return f"scan {number}"
    return str(scan[CASE])


def _problems(scan: Mapping[str, Any], root: Path) -> list[str]:
    problems = [f"no `{key}`" for key in (*IDS, "image") if key not in scan]
    for key in IDS:
        if key in scan:
            problems += _errors_of(check_name, key, scan[key])
    for key in PATHS:
        if key in scan:
            problems += _path_problems(key, scan[key], root)
    return problems


def _errors_of(check: Callable[..., None], key: str, value: Any) -> list[str]:
    try:
        check(**{key: value})
    except ValueError as error:
        return [str(error)]
    return []


def _path_problems(key: str, value: Any, root: Path) -> list[str]:
    if not isinstance(value, str) or not value:
        return [f"`{key}` must be a path, got {value!r}"]
    problems = _errors_of(check_local, key, value)
    if problems:
        return problems
    if not resolve_path(root / value).is_relative_to(resolve_path(root)):
        return [f"`{key}` must lie in the folder of the cohort, got a path that leads out of it"]
    return [] if os.path.exists(root / value) else [f"`{key}` must exist, got a path without a file"]


def list_scans(
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
    check_local(path=path)
    file = Path(path)
    folder = resolve_path(file.parent if root is None else root, "root")
    columns = (*COLUMNS, *keep)
    rows = _rows(file, columns)
    errors = [Issue(location, text) for location, row in rows for text in _row_errors(row, folder)]
    errors += _repeated_ids(rows)
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
    if not os.path.isfile(file):
        raise FileNotFoundError(f"`path` must be a table of scans that exists, got {file.name!r}.")
    scans = _read_scans(file)
    if scans is None:
        raise ValueError(
            f'`path` must be .csv, .tsv, .xlsx, or JSON of the form {{"scans": [{{...}}, ...]}}, got {file.name!r}.'
        )
    return [(f"scan {i}", {key: scan[key] for key in columns if key in scan}) for i, scan in enumerate(scans)]


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


def _row_errors(row: Mapping[str, Any], folder: Path) -> Sequence[str]:
    wrong = [key for key, value in row.items() if isinstance(value, (list, dict, bool))]
    if wrong:
        return [f"`{key}` must be text or a number, got {row[key]!r}" for key in wrong]
    errors = _errors_of(check_name, CASE, str(row.get(CASE, "")))
    if not row.get("image"):
        errors.append("`image` must be given, got an empty cell")
    for key in PATHS:
        if row.get(key):
            value = str(row[key])
            remote = _errors_of(check_local, key, value)
            errors += remote
            if not remote and not resolve_path(folder / value).is_relative_to(folder):
                errors.append(f"`{key}` must lie in the folder of the scans, got a path that leads out of it")
    return errors


def _item(row: Mapping[str, Any], folder: Path, columns: Sequence[str]) -> dict[str, Any]:
    item = {key: str(row[key]) for key in columns if str(row.get(key, ""))}
    return {**item, **{key: str(resolve_path(folder / item[key])) for key in PATHS if key in item}}


SLIDE_SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif", ".czi")


def list_slides(
    path: str | os.PathLike[str],
    case_id: str | None = None,
    root: str | os.PathLike[str] | None = None,
    slide_dir: str | os.PathLike[str] | None = None,
    slide: str | os.PathLike[str] | None = None,
) -> list[dict[str, Any]]:
    """Return an item with ``case_id`` and ``image`` for each slide or feature file at ``path``.

    - A file is one item, see :py:func:`single_case`.
    - In a folder, slides and feature files are sorted by name, and the name without suffix is the case ID; a name with
      characters other than letters, digits, ``.``, ``_`` and ``-`` becomes ``slide_`` and a hash of it.
    - A table (CSV, TSV, Excel, JSON) is read by :py:func:`list_scans`; its column ``slide_mpp`` is kept.

    The item of a feature file gets the path of its slide as ``source``, for pictures: ``slide``, the column ``slide``
    of a table, or the slide below ``slide_dir`` with the stem of the file. If there is none, or there are several, it
    gets the reason as ``pictures_missing``.

    Args:
        path: path of the file, folder or table.
        case_id: case ID of a single file; None derives one.
        root: folder of the slides of a table, by default that of the table.
        slide_dir: folder that holds the slides of the feature files, at any depth.
        slide: slide of a single feature file.

    Raises:
        FileNotFoundError: when there is nothing at ``path``, or no slide in the folder.
        ValueError: when two files of a folder have the same name without suffix, or the table has errors. The message
            counts the files in the order of their names. When no feature file has a slide below ``slide_dir``.

    Example:
        >>> folder = Path("slides")
        >>> folder.mkdir()
        >>> for name in ("b.svs", "a.h5", "Müller.svs", "notes.txt"):
        ...     (folder / name).touch()
        >>> [item["case_id"] for item in list_slides(folder)]
        ['slide_a78429899b', 'a', 'b']
    """
    check_local(path=path)
    source = Path(path)
    folder: str | os.PathLike[str] | None = None
    if source.suffix.lower() in (*TABLE_SUFFIXES, ".json"):
        items, folder = _table_items(source, root), source.parent if root is None else root
    elif os.path.isdir(source) and not is_feature_file(source):
        items = _folder_items(source)
    elif not os.path.exists(source):
        raise FileNotFoundError("`path` must be a slide, a folder or a table that exists, got none.")
    else:
        items = [single_case(source, case_id)]
    return pair_slides(items, SLIDE_SUFFIXES, slide_dir, slide, folder)


def list_bags(path: str | os.PathLike[str], case_id: str | None = None) -> list[dict[str, Any]]:
    """Return an item with ``case_id`` and ``image`` for each feature file at ``path``.

    A file is one item, see :py:func:`single_case`. In a folder, feature files are sorted by name, and the name without
    suffix is the case ID, as in :py:func:`list_slides`.

    Args:
        path: path of the file or folder.
        case_id: case ID of a single file; None derives one.

    Raises:
        FileNotFoundError: when there is nothing at ``path``, or no feature file in the folder.
        ValueError: when two files of a folder have the same name without suffix.
    """
    source = Path(path)
    if source.is_dir() and not is_feature_file(source):
        return _folder_items(source, (*FEATURE_SUFFIXES, ".zarr"))
    return [single_case(source, case_id)]


def single_case(
    path: str | os.PathLike[str],
    case_id: str | None = None,
    series: str | None = None,
    reference: str | os.PathLike[str] | None = None,
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

    Raises:
        ValueError: when ``case_id`` can't be a file name.

    Example:
        >>> _ = Path("Jane_Doe.svs").write_bytes(b"slide")
        >>> single_case("Jane_Doe.svs", "c7")["case_id"], single_case("Jane_Doe.svs")["case_id"][:5]
        ('c7', 'case-')
    """
    image = {"image": str(resolve_path(path)), **({} if series is None else {str(BagKeys.SERIES): str(series)})}
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
    return Path(path).suffix.lower() in (*FEATURE_SUFFIXES, ".zarr")


def _folder_items(
    folder: Path, suffixes: Sequence[str] = (*SLIDE_SUFFIXES, *FEATURE_SUFFIXES, ".zarr")
) -> list[dict[str, Any]]:
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith("."))
    if not files:
        raise FileNotFoundError("`path` must be a folder with slides or feature files, got one without.")
    items = [{CASE: _case_id(file.stem), "image": str(resolve_path(file))} for file in files]
    check_case_ids(items, [f"file {number} ({file.suffix})" for number, file in enumerate(files, 1)])
    return items


def _case_id(stem: str) -> str:
    try:
        check_name(case_id=stem)
    except ValueError:
        return f"slide_{hashlib.sha256(stem.encode('utf-8', 'surrogateescape')).hexdigest()[:10]}"
    return stem


def _table_items(table: Path, root: str | os.PathLike[str] | None) -> list[dict[str, Any]]:
    items = list_scans(table, root, (SLIDE,))
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
