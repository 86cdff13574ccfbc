"""Tables of a cohort, checked row by row and merged by patient."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from monai_mil_ext.data.bags.bag_folder import BagFolder
from monai_mil_ext.data.bags.folder_layout import FEATURE_SUFFIXES, file_name
from monai_mil_ext.utils import BagKeys, check_name, hide_paths, resolve_path
from monai_mil_ext.utils.remote import is_remote

from .check_report import CohortReport, Issue
from .cohort_checks import BagSummary, CohortChecks
from .columns import CohortColumns
from .table_file import Table
from .tables.column_names import open_table

__all__ = [
    "check_table",
    "merge_patients",
]


PATIENT = str(BagKeys.PATIENT)
MAX_NAMES = 5  # of files listed in a note


def check_table(
    path: Path | Sequence[Path],
    columns: CohortColumns,
    checks: CohortChecks,
    root: str | os.PathLike[str] | None = None,
    suffixes: Sequence[str] = FEATURE_SUFFIXES,
) -> CohortReport:
    """Check a table and every bag file in it; see :py:func:`monai_mil_ext.data.check_cohort`."""
    paths = [path] if isinstance(path, Path) else list(path)
    table, columns, taken, unclear = open_table(paths, columns)
    folder = BagFolder(root or paths[0].parent, paths[0].parent, suffixes)
    report = CohortReport(" + ".join(file.name for file in paths), len(table.rows))
    report.notes += [Issue("row 1", text) for text in taken]
    report.errors += [Issue("row 1", text) for text in [*unclear, *columns.missing(table.columns)]]
    if report.errors:
        return report
    used, words = columns.names, columns.words(table.rows)
    if words:  # one error for all rows, whose labels are then not read
        report.errors.append(Issue("", words))
        columns = replace(columns, label=None)
    rows = [_Row(number, row, columns, folder) for number, row in zip(table.numbers, table.rows, strict=True)]
    _find_duplicates(rows, lambda row: row.path, "must be in one row only")
    _find_duplicates(rows, lambda row: row.case_id, "must have a unique name")
    summaries = checks.check_widths(checks.inspect_all(row.path for row in rows if row.path is not None))
    for row in rows:
        if row.path is not None:
            row.add_summary(summaries[row.path])
        report.errors += [*(Issue(row.location, text) for text in row.conflicts), *row.issues()]
    valid = [row for row in rows if not row.errors and not row.conflicts]
    report.items += [row.item for row in valid]
    known = [summaries[row.path] for row in valid if row.path is not None]
    errors, notes = checks.compare(known, report.items, columns.classes)
    report.errors += errors
    report.notes += [*_notes(table, used, folder, rows), *notes]
    return report


class _Row:
    """Row of a cohort table: path of its bag file, its item, and its errors."""

    def __init__(self, number: int, cells: dict[str, str], columns: CohortColumns, folder: BagFolder) -> None:
        bag = cells[columns.bag]
        self.number = number
        name = file_name(bag) if columns.case is None else cells[columns.case]  # a file may be named by its patient
        self.location = f"row {number}, {name!r}" if name else f"row {number}"
        self.errors: list[str] = []  # that leaving out the row resolves
        self.conflicts: list[str] = []  # with other rows
        given = None if columns.case is None else cells[columns.case]
        self.case = given or Path(file_name(bag)).stem
        self.path = self._find_file("bag", bag, folder)
        self.hidden = [] if columns.case is None or self.path is None else [self.path]
        self.item: dict[str, Any] = {}
        if self.path is not None:
            self.item["image"] = str(self.path)
            case = self.path.stem if columns.case is None else cells[columns.case]
            self._set_name(BagKeys.CASE_ID, case)
            self._set_name(BagKeys.PATIENT, case if columns.patient is None else cells[columns.patient])
        values, errors = columns.values(cells)
        self.item.update(values)
        self.errors += errors
        if columns.instance_label is not None and cells[columns.instance_label]:
            labels = self._find_labels(cells[columns.instance_label], folder)
            self.item[str(BagKeys.INSTANCE_LABEL)] = str(labels)

    @property
    def case_id(self) -> Any:
        return self.item.get(str(BagKeys.CASE_ID))

    def issues(self) -> list[Issue]:
        """Return the errors of the row; its case is named as in the item, or by its location."""
        name = self.case_id or self.case
        case = name if _is_name(name) else f"row {self.number}"
        return [Issue(self.location, text, case) for text in self.errors]

    def add_summary(self, summary: BagSummary) -> None:
        """Add the number of instances and the error of the bag file."""
        self.item["num_instances"] = summary.num_instances
        if summary.problem:
            self.errors.append(hide_paths(summary.problem, self.hidden))

    def _find_labels(self, value: str, folder: BagFolder) -> Path | None:
        """Return a file of labels, which lies beside the table where the folder of the bags is below that."""
        beside = folder.table_dir / value
        if not is_remote(beside):
            beside = resolve_path(beside)
        if beside.is_relative_to(folder.table_dir) and beside.is_file():
            return beside
        return self._find_file("instance_label", value, folder)

    def _find_file(self, name: str, value: str, folder: BagFolder) -> Path | None:
        try:
            if not value:
                raise ValueError("must be given, got an empty cell")
            return folder.find(value)
        except ValueError as error:
            self.errors.append(f"`{name}` {error}")
        except (OSError, RuntimeError) as error:  # such as a link to itself; the message has the whole path
            self.errors.append(f"`{name}` must be the path or the name of a bag file, got {type(error).__name__}")
        return None

    def _set_name(self, key: str, value: str) -> None:
        try:
            check_name(**{str(key): value})
        except ValueError as error:
            self.errors.append(str(error) if value else f"`{key}` must be given, got an empty cell")
        self.item[str(key)] = value


def _is_name(name: str) -> bool:
    try:
        check_name(case_id=name)
    except ValueError:
        return False
    return True


def _find_duplicates(rows: list[_Row], identity: Callable[[_Row], Hashable], rule: str) -> None:
    first_rows: dict[Hashable, _Row] = {}
    for row in rows:
        first = first_rows.setdefault(identity(row), row)
        if row is not first and identity(row) is not None and not row.errors + row.conflicts:
            row.conflicts.append(f"`bag` {rule}, got it in row {first.number} too")


def _notes(table: Table, used: Sequence[str], folder: BagFolder, rows: list[_Row]) -> list[Issue]:
    unused = [column for column in table.columns if column not in used]
    listed = {row.path for row in rows}
    unlisted = [file.name for file in folder.files if file not in listed and resolve_path(file) not in listed]
    more = f" and {len(unlisted) - MAX_NAMES} more" if len(unlisted) > MAX_NAMES else ""
    texts = {
        f"unused columns: {', '.join(map(repr, unused))}": unused,
        f"bag files that are not in the table: {', '.join(map(repr, unlisted[:MAX_NAMES]))}{more}": unlisted,
    }
    return [Issue("", text) for text, names in texts.items() if names]


PER_BAG = ("covariates", "image", "num_instances", str(BagKeys.INSTANCE_LABEL), str(BagKeys.CASE_ID))


def merge_patients(report: CohortReport) -> CohortReport:
    """Merge all valid bags of each patient into one item: lists of per-bag values, single shared values.

    Shared values that differ between bags of a patient, such as two labels, are an error.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for item in report.items:
        groups.setdefault(item[str(BagKeys.PATIENT)], []).append(item)
    report.items = []
    for patient, bags in groups.items():
        conflicts = _conflicts(patient, bags)
        report.errors += conflicts
        if not conflicts:
            report.items.append(_merged(patient, bags))
    return report


def _conflicts(patient: str, bags: list[dict[str, Any]]) -> list[Issue]:
    errors = []
    shared = [{**bag, **{f"covariate {k}": v for k, v in bag.get("covariates", {}).items()}} for bag in bags]
    for key in shared[0]:
        values = [_plain(bag.get(key)) for bag in shared]
        if key not in PER_BAG and len({str(value) for value in values}) > 1:
            cases = ", ".join(f"{value} for {bag['case_id']!r}" for value, bag in zip(values, bags, strict=True))
            text = f"`{key}` must be the same for all bags, got {cases}"
            errors.append(Issue(f"patient {patient!r}", text, patient))
    return errors


def _merged(patient: str, bags: list[dict[str, Any]]) -> dict[str, Any]:
    item = {**bags[0], str(BagKeys.CASE_ID): patient, "image": [bag["image"] for bag in bags]}
    item["num_instances"] = sum(bag["num_instances"] for bag in bags)
    labels = [bag.get(str(BagKeys.INSTANCE_LABEL)) for bag in bags]
    if any(labels):
        item[str(BagKeys.INSTANCE_LABEL)] = labels
    return item


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value
