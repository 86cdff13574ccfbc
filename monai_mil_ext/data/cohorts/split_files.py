"""Published splits of a cohort: those of this package, and the tables of slides that CLAM writes for each fold."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_mil_ext.utils import BagKeys, check_choice, check_local

from .class_labels import label_text
from .splits import PARTS, CohortSplits
from .table_file import read_table

__all__ = ["load_splits"]

FOLD = re.compile(r"splits_(\d+)\.csv", re.IGNORECASE)
MAX_NAMES = 5  # of cases in a message
logger = logging.getLogger(__name__)


def load_splits(
    path: str | os.PathLike[str], items: Sequence[Mapping[str, Any]], on_bad: str = "refuse"
) -> CohortSplits:
    r"""Load splits of a file, such as published ones.

    - JSON is that of :py:meth:`CohortSplits.write`.
    - A table (CSV, TSV, Excel) with the columns ``train``, ``val`` and ``test`` of slides, as CLAM's ``splits_0.csv``,
      is one fold. ``val`` may be absent.
    - A folder with ``splits_0.csv``, ``splits_1.csv``, ... has one fold for each of them.

    A slide is named by its case ID or the name of its file. Slides of a patient who is one item are counted once.

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
    if source.suffix.lower() == ".json":
        return CohortSplits.read(source)
    files = _fold_files(source) if os.path.isdir(source) else [source]
    patients = {str(item[str(BagKeys.CASE_ID)]): str(item[str(BagKeys.PATIENT)]) for item in items}
    cases = _cases_by_name(items)
    return CohortSplits([_read_fold(file, cases, on_bad) for file in files], patients)


def _fold_files(folder: Path) -> list[Path]:
    numbers = {int(match[1]): file for file in folder.iterdir() if (match := FOLD.fullmatch(file.name))}
    if not numbers:
        raise FileNotFoundError("`path` must be a folder with splits_0.csv, splits_1.csv, ..., got one without.")
    if sorted(numbers) != list(range(len(numbers))):
        raise ValueError(f"`path` must have splits of all folds from 0, got those of {sorted(numbers)}.")
    return [numbers[i] for i in range(len(numbers))]


def _cases_by_name(items: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the case IDs by themselves and by the names of the files of the items."""
    cases = {}
    for item in items:
        case = str(item[str(BagKeys.CASE_ID)])
        paths = item["image"] if isinstance(item.get("image"), (list, tuple)) else [item.get("image", case)]
        for name in [*(Path(str(path)).stem for path in paths), case]:
            cases[name] = case
    return cases


def _read_fold(file: Path, cases: Mapping[str, str], on_bad: str) -> dict[str, list[str]]:
    table = read_table(file)
    missing = [part for part in PARTS if part not in table.columns and part != "val"]
    if missing:
        raise ValueError(f"`path` must have the columns 'train', 'val' and 'test', got {table.columns}.")
    names = {part: [row[part] for row in table.rows if row.get(part)] for part in PARTS}
    if {name.lower() for part in PARTS for name in names[part]} <= {"true", "false"}:
        raise ValueError(f"`path` must name slides, got true and false: give {file.name.replace('_bool', '')!r}.")
    found = {part: [_find(name, cases) for name in names[part]] for part in PARTS}
    fold = {part: list(dict.fromkeys(case for case in found[part] if case is not None)) for part in PARTS}
    lost = [name for part in PARTS for name, case in zip(names[part], found[part], strict=True) if case is None]
    unused = sorted(set(cases.values()) - {case for part in PARTS for case in fold[part]})
    _report(file.name, "slides of the table are not in the cohort", lost, on_bad)
    _report(file.name, "cases of the cohort are in no part", unused, on_bad)
    return fold


def _find(name: str, cases: Mapping[str, str]) -> str | None:
    """Return the case of a slide, which may be named as a file, or by a number as a data frame writes it."""
    return next((cases[key] for key in (name, Path(name).stem, label_text(name)) if key in cases), None)


def _report(file: str, text: str, names: Sequence[str], on_bad: str) -> None:
    if not names:
        return
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    listed = f"{len(names)} {text}: {', '.join(map(repr, names[:MAX_NAMES]))}{more}"
    if on_bad == "refuse":
        raise ValueError(f"`path` must have the slides of the cohort, got {file!r}: {listed}. --on_bad skip goes on.")
    logger.warning("%s: %s", file, listed)
