"""Published splits of a cohort: those of this package and of other tools."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_mil_ext.utils import BagKeys, check_choice, check_local, load_json

from .class_labels import label_text
from .columns import PARTS as KNOWN
from .splits import PARTS, CohortSplits
from .table_file import Table, read_table
from .tables.column_names import find_header

__all__ = ["load_splits"]

FOLD = re.compile(r"splits?_(\d+)\.(csv|json)", re.IGNORECASE)
FOLD_COLUMN = re.compile(r"(?:fold|split)[ _]?(\d+)", re.IGNORECASE)
SPLIT_COLUMNS = ("split", "split_info")
NAME_COLUMNS = ("bag_name", "slide_id", "wsi", "filename", "bag", "slide", "image", "case_id", "case", "patient")
Fold = dict[str, list[list[str]]]  # the names that each row of a part gives to its slide
MAX_NAMES = 5  # of cases in a message
logger = logging.getLogger(__name__)


def load_splits(
    path: str | os.PathLike[str], items: Sequence[Mapping[str, Any]], on_bad: str = "refuse"
) -> CohortSplits:
    r"""Load splits of a file, such as published ones.

    - JSON is that of :py:meth:`CohortSplits.write`, or one fold with ``train_names``, ``val_names`` and ``test_names``
      (ACMIL's ``split_1.json``), or ``train``, ``val`` and ``test``.
    - A table (CSV, TSV, Excel) with the columns ``train``, ``val`` and ``test`` of slides, as CLAM's ``splits_0.csv``,
      is one fold. ``val`` may be absent.
    - A table with a row for each slide and its part in the column ``split``, as torchmil's ``splits.csv`` with
      ``bag_name``, or in ``split_info``, is one fold.
    - A table with a row for each slide and the columns ``fold_0``, ``fold_1``, ..., as Patho-Bench's ``k=all.tsv``, has
      a fold for each of them.
    - A folder with ``splits_0.csv``, ``splits_1.csv``, ... or ``split_1.json``, ``split_2.json``, ... has one fold for
      each of them.

    A slide is named by its case ID or the name of its file, or the patient stands for all slides. Slides of a patient
    who is one item are counted once.

    Args:
        path: the file or folder.
        items: items of the cohort, see :py:func:`monai_mil_ext.data.load_cohort`.
        on_bad: ``"refuse"``, or ``"skip"`` to leave out slides of a table that are not in the cohort, and to use none
            of the cohort that is in no part; they are logged.

    Raises:
        FileNotFoundError: when there is no such file, or no table of a fold in the folder.
        ValueError: when a table has other columns, cohort and table have other slides, or a patient is in two parts.

    Example:
        >>> items = [{"case_id": case, "patient": case, "image": f"{case}.h5"} for case in ("a", "b", "c")]
        >>> _ = Path("splits_0.csv").write_text(",train,val,test\n0,a,b,c\n")
        >>> load_splits("splits_0.csv", items).folds
        [{'train': ['a'], 'val': ['b'], 'test': ['c']}]
    """
    check_choice("on_bad", on_bad, ("refuse", "skip"))
    check_local(path=path)
    source = Path(path)
    files = _fold_files(source) if os.path.isdir(source) else [source]
    content = load_json(source) if os.path.isfile(source) and source.suffix.lower() == ".json" else {}
    if source.suffix.lower() == ".json" and _json_fold(content) is None:
        return CohortSplits.read(source)
    patients = {str(item[str(BagKeys.CASE_ID)]): str(item[str(BagKeys.PATIENT)]) for item in items}
    cases = _cases_by_name(items)
    folds = [(file.name, fold) for file in files for fold in _read_folds(file)]
    return CohortSplits([_find_fold(name, fold, cases, on_bad) for name, fold in folds], patients)


def _fold_files(folder: Path) -> list[Path]:
    found = {file: match for file in folder.iterdir() if (match := FOLD.fullmatch(file.name))}
    kind = min((match[2].lower() for match in found.values()), default="")
    numbers = {int(match[1]): file for file, match in found.items() if match[2].lower() == kind}
    if not numbers:
        raise FileNotFoundError("`path` must be a folder with splits_0.csv, splits_1.csv, ..., got one without.")
    first = min(numbers) if kind == "json" else 0  # ACMIL counts from 1
    if sorted(numbers) != list(range(first, first + len(numbers))):
        raise ValueError(f"`path` must have splits of all folds from 0, got those of {sorted(numbers)}.")
    return [numbers[i] for i in sorted(numbers)]


def _cases_by_name(items: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the case IDs by themselves, by the names of the files of the items, and by patient."""
    cases: dict[str, list[str]] = {}
    for item in items:
        cases.setdefault(str(item[str(BagKeys.PATIENT)]), []).append(str(item[str(BagKeys.CASE_ID)]))
    for item in items:
        case = str(item[str(BagKeys.CASE_ID)])
        paths = item["image"] if isinstance(item.get("image"), (list, tuple)) else [item.get("image", case)]
        for name in [*(Path(str(path)).stem for path in paths), case]:
            cases[name] = [case]
    return cases


def _read_folds(file: Path) -> list[Fold]:
    if file.suffix.lower() == ".json":
        fold = _json_fold(load_json(file))
        if fold is None:
            raise ValueError(f"`path` must have train_names, val_names and test_names, got others in {file.name!r}.")
        return [fold]
    table = read_table(file)
    numbered = {int(match[1]): name for name in table.columns if (match := FOLD_COLUMN.fullmatch(name))}
    single = [header for name in SPLIT_COLUMNS if (header := find_header(name, table.columns))]
    columns = [numbered[number] for number in sorted(numbered)] or single[:1]
    if columns:
        return [_fold_of_column(table, column) for column in columns]
    headers = {part: find_header(part, table.columns) for part in PARTS}
    if headers["train"] is None or headers["test"] is None:
        raise ValueError(
            "`path` must have the columns 'train', 'val' and 'test', or 'split' or 'fold_0', ... with the part of each "
            f"slide, got {table.columns}."
        )
    fold = {part: [[row[name]] for row in table.rows if name and row[name]] for part, name in headers.items()}
    if {name.lower() for part in PARTS for (name,) in fold[part]} <= {"true", "false"}:
        raise ValueError(f"`path` must name slides, got true and false: give {file.name.replace('_bool', '')!r}.")
    return [fold]


def _json_fold(content: Any) -> Fold | None:
    """Return the fold of JSON with a list of names for each part, or None for another form."""
    if not isinstance(content, dict):
        return None
    lists: dict[str, Any] = {part: content.get(f"{part}_names", content.get(part)) for part in PARTS}
    lists["val"] = lists["val"] or []
    if not all(isinstance(names, list) for names in lists.values()):
        return None
    return {part: [[label_text(name)] for name in names] for part, names in lists.items()}


def _fold_of_column(table: Table, column: str) -> Fold:
    """Return a fold from the column of the parts of a table with a row for each slide."""
    names = [header for name in NAME_COLUMNS if (header := find_header(name, table.columns))]
    if not names:
        raise ValueError(f"`path` must have a column of slides such as 'slide_id', got {table.columns}.")
    wrong = [number for number, row in zip(table.numbers, table.rows, strict=True) if row[column].lower() not in KNOWN]
    if wrong:
        raise ValueError(f"`path` must have train, val or test in the column {column!r}, got another in rows {wrong}.")
    fold: Fold = {part: [] for part in PARTS}
    for row in table.rows:
        if row[column]:
            fold[KNOWN[row[column].lower()]].append([row[name] for name in names if row[name]])
    return fold


def _find_fold(file: str, fold: Fold, cases: Mapping[str, list[str]], on_bad: str) -> dict[str, list[str]]:
    """Return the cases of each part of a fold."""
    found = {part: [_find(names, cases) for names in fold[part]] for part in PARTS}
    lost = [names[0] for part in PARTS for names, matches in zip(fold[part], found[part], strict=True) if not matches]
    parts = {part: list(dict.fromkeys(case for matches in found[part] for case in matches)) for part in PARTS}
    used = {case for part in PARTS for case in parts[part]}
    unused = sorted({case for same in cases.values() for case in same} - used)
    _report(file, "slides of the table are not in the cohort", lost, on_bad)
    _report(file, "cases of the cohort are in no part", unused, on_bad)
    return parts


def _find(names: Sequence[str], cases: Mapping[str, list[str]]) -> list[str]:
    """Return the cases of a slide, which may be named as a file, or by a number as a data frame writes it."""
    keys = [key for name in names for key in (name, Path(name).stem, label_text(name))]
    return next((cases[key] for key in keys if key in cases), [])


def _report(file: str, text: str, names: Sequence[str], on_bad: str) -> None:
    if not names:
        return
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    listed = f"{len(names)} {text}: {', '.join(map(repr, names[:MAX_NAMES]))}{more}"
    if on_bad == "refuse":
        raise ValueError(f"`path` must have the slides of the cohort, got {file!r}: {listed}. --on_bad skip goes on.")
    logger.warning("%s: %s", file, listed)
