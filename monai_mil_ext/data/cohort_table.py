"""A cohort of bag files in a table."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

from monai_mil_ext.utils import BagKeys, check_name

from .bag_folder import BagFolder
from .cohort_checks import BagHead, CohortChecks
from .cohort_columns import CohortColumns
from .cohort_report import CohortReport, Finding
from .table_file import Table, read_table

__all__ = ["check_table"]

MAX_NAMES = 5  # in a note


def check_table(path: Path, columns: CohortColumns, checks: CohortChecks, root: str | os.PathLike[str]) -> CohortReport:
    """Check a table and every bag file in it; see :py:func:`monai_mil_ext.data.check_cohort`."""
    table, folder = read_table(path), BagFolder(root)
    report = CohortReport(path.name, len(table.rows))
    report.faults += [Finding("row 1", text) for text in columns.missing(table.columns)]
    if report.faults:
        return report
    rows = [_Row(number, row, columns, folder) for number, row in zip(table.numbers, table.rows, strict=True)]
    _find_doubled(rows, lambda row: row.path, "must stand in one row only")
    _find_doubled(rows, lambda row: row.case_id, "must have a name that no other bag has")
    heads = checks.check_widths({row.path: checks.look(row.path) for row in rows if row.path is not None})
    for row in rows:
        if row.path is not None:
            row.judge(heads[row.path], checks)
        report.faults += [Finding(row.place, text) for text in row.faults]
        report.left_out += [Finding(row.place, text) for text in row.left_out]
        if not row.faults and not row.left_out:
            report.items.append(row.item)
    report.notes += _notes(table, columns, folder, rows)
    return report


class _Row:
    """One row of the table: the file that it names, its values, and what is wrong with them."""

    def __init__(self, number: int, cells: dict[str, str], columns: CohortColumns, folder: BagFolder) -> None:
        bag = cells[columns.bag]
        self.number = number
        self.place = f"row {number}, {bag!r}" if bag else f"row {number}"
        self.left_out: list[str] = []
        self.faults: list[str] = []
        self.path = self._file("bag", bag, folder)
        self.item: dict[str, Any] = {}
        if self.path is not None:
            self.item["image"] = str(self.path)
            self._name(BagKeys.CASE_ID, self.path.stem)
            self._name(BagKeys.PATIENT, self.path.stem if columns.patient is None else cells[columns.patient])
        values, faults = columns.values(cells)
        self.item.update(values)
        self.faults += faults
        if columns.instance_label is not None and cells[columns.instance_label]:
            labels = self._file("instance_label", cells[columns.instance_label], folder)
            self.item[str(BagKeys.INSTANCE_LABEL)] = str(labels)

    @property
    def case_id(self) -> Any:
        return self.item.get(str(BagKeys.CASE_ID))

    def judge(self, head: BagHead, checks: CohortChecks) -> None:
        """Take what was found in the file for a fault, or leave the bag out, as the caller said."""
        self.item["num_instances"] = head.num_instances
        if head.fault:
            (self.left_out if checks.on_damaged == "skip" else self.faults).append(head.fault)
        elif not head.num_instances:
            text = "a bag must have an instance, got none"
            (self.left_out if checks.on_empty == "skip" else self.faults).append(text)

    def _file(self, name: str, value: str, folder: BagFolder) -> Path | None:
        try:
            if not value:
                raise ValueError("must be given, got an empty cell")
            return folder.find(value)
        except ValueError as error:
            self.faults.append(f"`{name}` {error}")
            return None

    def _name(self, key: str, value: str) -> None:
        try:
            check_name(**{str(key): value})
        except ValueError as error:
            self.faults.append(str(error) if value else f"`{key}` must be given, got an empty cell")
        self.item[str(key)] = value


def _find_doubled(rows: list[_Row], identity: Callable[[_Row], Hashable], rule: str) -> None:
    first: dict[Hashable, _Row] = {}
    for row in rows:
        one = first.setdefault(identity(row), row)
        if row is not one and identity(row) is not None and not row.faults:
            row.faults.append(f"`bag` {rule}, got it in row {one.number} too")


def _notes(table: Table, columns: CohortColumns, folder: BagFolder, rows: list[_Row]) -> list[Finding]:
    unused = [column for column in table.columns if column not in columns.names]
    named = {row.path for row in rows}
    strangers = [str(file.relative_to(folder.root)) for file in folder.files if file.resolve() not in named]
    more = f" and {len(strangers) - MAX_NAMES} more" if len(strangers) > MAX_NAMES else ""
    texts = {
        f"columns that are not used: {', '.join(map(repr, unused))}": unused,
        f"bag files that no row names: {', '.join(map(repr, strangers[:MAX_NAMES]))}{more}": strangers,
    }
    return [Finding("", text) for text, found in texts.items() if found]
