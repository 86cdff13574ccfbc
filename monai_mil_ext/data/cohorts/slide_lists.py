"""Lists of slides and feature files for inference, from a file, a folder or a table."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from monai_mil_ext.data.bags.bag_folder import BagFolder
from monai_mil_ext.data.bags.folder_layout import (
    FEATURE_SUFFIXES,
    drop_links,
    file_name,
    list_files,
    name_folders,
    prefer_files,
)
from monai_mil_ext.data.slides import find_dicom_slides
from monai_mil_ext.utils import BagKeys, check_case_ids, check_choice, check_local, check_name, resolve_path
from monai_mil_ext.utils.bag_items import case_id_of
from monai_mil_ext.utils.remote import as_path, exists, is_remote, isdir

from .case_lists import is_feature_file, list_scans, single_case
from .columns import CohortColumns
from .slide_pairs import COLUMN as SLIDE
from .slide_pairs import pair_slides
from .table_file import TABLE_SUFFIXES, read_table
from .tables.column_names import name_columns

__all__ = ["SLIDE_SUFFIXES", "list_bags", "list_slides"]

CASE, PATIENT, ERROR = str(BagKeys.CASE_ID), str(BagKeys.PATIENT), str(BagKeys.INPUT_ERROR)
NUMBERS = (str(BagKeys.SLIDE_MPP), "magnification")  # columns of positive numbers that a slide may lack
SLIDE_SUFFIXES: tuple[str, ...] = (
    ".svs",
    ".tif",
    ".tiff",
    ".qptiff",
    ".ndpi",
    ".vms",
    ".vmu",
    ".scn",
    ".mrxs",
    ".svslide",
)
DICOM = ".dcm"  # in a folder, a series of files is a slide
SLIDE_SUFFIXES += (".bif", ".czi", DICOM)


def list_slides(
    path: str | os.PathLike[str],
    case_id: str | None = None,
    root: str | os.PathLike[str] | None = None,
    columns: CohortColumns | None = None,
    level: str = "bag",
    prefer: str | None = None,
    keep: Sequence[str] = (),
    slide_dir: str | os.PathLike[str] | None = None,
    slide: str | os.PathLike[str] | None = None,
) -> list[dict[str, Any]]:
    """Return an item with ``case_id`` and ``image`` for each slide or feature file at ``path``.

    - A file is one item, see :py:func:`single_case`.
    - In a folder and its sub-folders, slides and feature files are sorted by path, and the name without suffix is the
      case ID; a name with characters other than letters, digits, ``.``, ``_`` and ``-`` becomes ``slide_`` and a hash
      of it. Each series of a slide in DICOM is one item, see :py:func:`monai_mil_ext.data.find_dicom_slides`. What
      other tools keep beside the slides and bags, such as an index or coordinates, is left out.
    - A table (CSV, TSV, Excel) has the column ``bag`` of ``columns`` as in the training, and the case ID is the name of
      the file; or it has the columns ``case_id`` and ``image``. Files are given by path or by name, and found anywhere
      below ``root``. JSON is as for :py:func:`list_scans`. ``patient`` and ``slide_mpp`` are kept. A row whose file is
      not found has ``input_error``, see :py:func:`list_scans`.

    The item of a feature file gets the path of its slide as ``source``, for pictures: ``slide``, the column ``slide``
    of a table, or the slide below ``slide_dir`` with the stem of the file. If there is none, or there are several, it
    gets the reason as ``pictures_missing``.

    Args:
        path: path of the file, folder or table.
        case_id: case ID of a single file; None derives one.
        root: folder of the slides of a table, by default that of the table; no path may lead out of it.
        columns: meaning of the columns of a table; labels are not read.
        level: ``"bag"``, or ``"patient"`` for one item per patient with the list of all slides as ``image``.
        prefer: ``"slides"`` or ``"features"``, which are taken where a slide and a feature file have the same name;
            ``None`` refuses them.
        keep: further columns to keep, as text, if not empty.
        slide_dir: folder that holds the slides of the feature files, at any depth.
        slide: slide of a single feature file.

    Raises:
        FileNotFoundError: when there is nothing at ``path``, or no slide in the folder.
        ValueError: when two files of a folder have the same name without suffix, the table has errors, patients are
            not known, or no feature file has a slide below ``slide_dir``. The message has no name of a file.

    Example:
        >>> folder = Path("slides")
        >>> folder.mkdir()
        >>> for name in ("b.svs", "a.h5", "Müller.svs", "notes.txt"):
        ...     (folder / name).touch()
        >>> [item["case_id"] for item in list_slides(folder)]
        ['slide_a78429899b', 'a', 'b']
    """
    check_choice("prefer", prefer or "slides", ("slides", "features"))
    preferred = {None: (), "slides": SLIDE_SUFFIXES, "features": FEATURE_SUFFIXES}[prefer]
    kinds = _Kinds("slide", (*SLIDE_SUFFIXES, *FEATURE_SUFFIXES), preferred)
    named = () if columns is not None and columns.bag == SLIDE else (SLIDE,)
    items = _list(path, case_id, root, columns, level, kinds, (*named, *keep))
    return pair_slides(items, SLIDE_SUFFIXES, slide_dir, slide, root or Path(path).parent)


def list_bags(
    path: str | os.PathLike[str],
    case_id: str | None = None,
    root: str | os.PathLike[str] | None = None,
    columns: CohortColumns | None = None,
    level: str = "bag",
) -> list[dict[str, Any]]:
    """Return an item with ``case_id`` and ``image`` for each feature file at ``path``, as :py:func:`list_slides` does.

    Args:
        path: path of the file, folder or table.
        case_id: case ID of a single file; None derives one.
        root: folder of the files of a table, by default that of the table; no path may lead out of it.
        columns: meaning of the columns of a table; labels are not read.
        level: ``"bag"``, or ``"patient"`` for one item per patient with the list of all files as ``image``.

    Raises:
        FileNotFoundError: when there is nothing at ``path``, or no feature file in the folder.
        ValueError: see :py:func:`list_slides`.
    """
    return _list(path, case_id, root, columns, level, _Kinds("feature file", FEATURE_SUFFIXES))


class _Kinds(NamedTuple):
    """Kind of the listed files, their suffixes, and those that are preferred."""

    name: str
    suffixes: Sequence[str]
    preferred: Sequence[str] = ()


def _list(
    path: str | os.PathLike[str],
    case_id: str | None,
    root: str | os.PathLike[str] | None,
    columns: CohortColumns | None,
    level: str,
    kinds: _Kinds,
    keep: Sequence[str] = (),
) -> list[dict[str, Any]]:
    check_choice("level", level, ("bag", "patient"))
    source = as_path(path)
    if not is_remote(source):
        check_local(path=source)
    if source.suffix.lower() in (*TABLE_SUFFIXES, ".json"):
        folder = BagFolder(root or source.parent, source.parent, kinds.suffixes, kinds.preferred)
        items = _table_items(source, folder, columns or CohortColumns(), keep)
    elif isdir(source) and not is_feature_file(source):
        items = _folder_items(source, kinds)
    elif not exists(source):
        raise FileNotFoundError(f"`path` must be a {kinds.name}, a folder or a table that exists, got none.")
    else:
        items = [single_case(source, case_id)]
    return _patient_items(items) if level == "patient" else items


def _folder_items(folder: Path, kinds: _Kinds) -> list[dict[str, Any]]:
    suffixes = [suffix for suffix in kinds.suffixes if suffix != DICOM]
    files = drop_links(prefer_files(list_files(folder, suffixes), kinds.preferred))
    series = find_dicom_slides(folder) if DICOM in kinds.suffixes and not is_remote(folder) else []
    if not files and not series:
        expected = "feature files" if kinds.name == "feature file" else "slides or feature files"
        raise FileNotFoundError(f"`path` must be a folder with {expected}, got one without.")
    stems: dict[str, list[Path]] = {}
    for file in files:
        stems.setdefault(file.stem, []).append(file)
    repeated = [file for same in stems.values() if len(same) > 1 for file in same]
    if len({file.parent for file in repeated}) > 1:
        count = sum(len(same) > 1 for same in stems.values())
        raise ValueError(
            f"`path` must have one file for each {kinds.name}, got several for {count} of {len(stems)}, "
            f"in {name_folders(repeated)}: give one of these folders."
        )
    items = [{CASE: case_id_of(file.stem, "slide"), "image": str(resolve_path(file))} for file in files]
    items += [{CASE: case, "image": str(resolve_path(file))} for case, file in series]
    places = [f"file {number} ({file.suffix})" for number, file in enumerate(files, 1)]
    check_case_ids(items, [*places, *(f"series {number}" for number in range(1, len(series) + 1))])
    return items


def _table_items(table: Path, folder: BagFolder, columns: CohortColumns, keep: Sequence[str]) -> list[dict[str, Any]]:
    if table.suffix.lower() == ".json":
        items = list_scans(table, folder.root, (*NUMBERS, *keep))
        return [item if ERROR in item else _found(item, item["image"], folder) for item in items]
    content = read_table(table)
    plain = replace(columns, label=None, time=None, event=None, instance_label=None, keep=(), covariates=())
    _, named, _, errors = name_columns(content, plain)
    if errors:
        raise ValueError(f"`path` must have columns with clear names, got {len(errors)} errors: {'; '.join(errors)}.")
    if named.bag not in content.columns:
        raise ValueError(
            f"`path` must have the columns {CASE!r} and 'image', or the column {columns.bag!r} of a training, got "
            f"{content.columns}: name it by --columns#bag."
        )
    keep = [name for name in keep if name != named.bag]
    items = [_found(*_named(row, named.case, named.bag, named.patient, keep), folder) for row in content.rows]
    check_case_ids(items, [f"row {number}" for number in content.numbers])
    return items


def _named(
    row: Mapping[str, str], case: str | None, image: str, patient: str | None, keep: Sequence[str]
) -> tuple[dict[str, Any], str]:
    """Return the item of a row without its file, and the name of the file."""
    item: dict[str, Any] = {} if case is None else {CASE: row[case]}
    if patient is not None and row.get(patient):
        item[PATIENT] = row[patient]
    return item | {name: row[name] for name in (*NUMBERS, *keep) if row.get(name)}, row[image]


def _found(item: dict[str, Any], name: str, folder: BagFolder) -> dict[str, Any]:
    """Return an item with the path of its file, or with the reason why there is none; its case ID may be the name."""
    try:
        numbers = {key: _positive_number(key, item[key]) for key in NUMBERS if key in item}
        if not name:
            raise ValueError("must be given, got an empty cell")
        path = folder.find(name)
        return {CASE: case_id_of(path.stem, "slide"), **item, **numbers, "image": str(path)}
    except ValueError as error:
        reason = str(error)
    except (OSError, RuntimeError) as error:  # such as a name that is too long
        reason = f"must be the path or the name of a file, got {type(error).__name__}"
    last = Path(file_name(name))
    stem = last.stem if last.suffix.lower() in folder.suffixes else last.name  # a name may have dots
    case = case_id_of(stem, "slide")
    return {CASE: case, **item, "image": "", ERROR: reason if reason.startswith("`") else f"`image` {reason}"}


def _positive_number(name: str, cell: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:  # the message shows the cell, so that check_positive_number does not serve
        raise ValueError(f"`{name}` must be a positive number, got {cell!r}")
    return number


def _patient_items(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return an item for each patient, with lists of the paths and resolutions of the slides."""
    unknown = sum(not item.get(PATIENT) for item in items)
    if unknown and len(items) > 1:
        raise ValueError(
            "`path` must be a table with a patient in every row for level 'patient', got "
            f"{unknown} of {len(items)} without: name its column by --columns#patient."
        )
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for item in items:
        groups.setdefault(str(item.get(PATIENT) or item[CASE]), []).append(item)
    return [_patient_item(patient, slides) for patient, slides in groups.items()]


def _patient_item(patient: str, slides: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    check_name(patient=patient)
    item: dict[str, Any] = {CASE: patient, PATIENT: patient, "image": [slide["image"] for slide in slides]}
    for name in NUMBERS:
        if any(name in slide for slide in slides):
            item[name] = [slide.get(name) for slide in slides]
    errors = [f"slide {i} of {len(slides)}: {slide[ERROR]}" for i, slide in enumerate(slides, 1) if ERROR in slide]
    return {**item, "image": [], ERROR: "; ".join(errors)} if errors else item
