"""Columns of a cohort table found by their names: those of this package and of other tools."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from monai_mil_ext.data.cohorts.columns import PARTS, CohortColumns
from monai_mil_ext.data.cohorts.table_file import Table, join_tables, read_table

from .label_folders import add_label_files

__all__ = ["NamedTable", "find_header", "name_columns", "open_table"]

# of STAMP, CLAM, TRIDENT, torchmil and slideflow
TOOL_BAGS = ("filename", "slide_id", "wsi", "bag_name", "slide")
PATIENTS = ("patient", "patient_id", "patientid", "subject_id", "subject")
CASES = ("case_id", "case")
SITES = ("site", "center", "centre", "hospital", "institution")


class NamedTable(NamedTuple):
    """Table with the names of its columns, notes on which was taken for what, and errors."""

    table: Table
    columns: CohortColumns
    notes: list[str]
    errors: list[str]


def open_table(paths: Sequence[Path], columns: CohortColumns) -> NamedTable:
    """Read a table, or one of bags and further ones of their patients, and find its columns; see `name_columns`."""
    if len(paths) == 1:
        named = name_columns(read_table(paths[0]), columns)
        return NamedTable(*add_label_files(named.table, named.columns, paths[0].parent, named.notes), named.errors)
    tables = [read_table(path) for path in paths]
    named = name_columns(Table(list(dict.fromkeys(h for table in tables for h in table.columns)), [], []), columns)
    patient = named.columns.patient or "patient"
    table = join_tables([_rename(table, patient) for table in tables], named.columns.bag, patient)
    return name_columns(table, replace(columns, patient=patient))


def _rename(table: Table, name: str) -> Table:
    """Return a table with the exact name of a column that it may spell in another case."""
    header = find_header(name, table.columns)
    if header is None or header == name:
        return table
    columns = [name if column == header else column for column in table.columns]
    return Table(columns, [dict(zip(columns, row.values(), strict=True)) for row in table.rows], table.numbers)


def find_header(name: str, headers: Iterable[str]) -> str | None:
    """Return the header of a column: the name itself, or the only one that differs in case, blanks or hyphens.

    Example:
        >>> find_header("case_id", ["Case ID", "image"]), find_header("label", ["Label", "LABEL"])
        ('Case ID', None)
    """
    found = [header for header in headers if header == name] or [h for h in headers if _plain(h) == _plain(name)]
    return found[0] if len(found) == 1 else None


def name_columns(table: Table, columns: CohortColumns) -> NamedTable:
    """Replace the names of columns by the headers of a table, and find those that have other names.

    A header equals a name exactly, or else apart from case. Without columns ``bag`` and ``patient``, their names in
    tables of other tools are taken, if only one fits. Columns of the case, site and split are found by their names as
    well, unless they are given. A table without a column of patients has one patient for each case.

    Args:
        table: the table.
        columns: names of the columns, of which the defaults stand for all names that are known.
    """
    names = _Names(table, columns)
    bag = names.bag()
    patient = names.patient(bag)
    case = names.case(bag, patient)
    found: dict[str, Any] = {"bag": bag, "patient": patient, "case": case, "site": names.site(), "split": names.split()}
    label = names.label()
    found["label"] = names.header(label) if isinstance(label, str) else label and [names.header(n) for n in label]
    found["covariates"] = [names.header(name) for name in columns.covariates]
    found |= {key: names.header(name) for key in ("time", "event", "instance_label") if (name := getattr(columns, key))}
    return NamedTable(table, replace(columns, **found), names.notes, names.errors)


class _Names:
    """Search for the columns of a table."""

    def __init__(self, table: Table, columns: CohortColumns) -> None:
        self.table, self.columns = table, columns
        self.notes: list[str] = []
        self.errors: list[str] = []

    def header(self, name: str) -> str:
        """Return the header of a column that is named, or the name, which is then reported as missing."""
        return find_header(name, self.table.columns) or name

    def bag(self) -> str:
        name = find_header(self.columns.bag, self.table.columns)
        if name is None and self.columns.bag == "bag":
            name = find_header("image", self.table.columns) or self._bag_of_tool()
        return name or self.columns.bag

    def _bag_of_tool(self) -> str | None:
        found = [name for name in TOOL_BAGS if find_header(name, self.table.columns)]
        if "filename" in found:  # STAMP has the file of the features and the name of the slide
            found = [name for name in found if name != "slide"]
        return self._one_of(found, "bag", self.table.columns)

    def patient(self, bag: str) -> str | None:
        name = self.columns.patient
        found = name and find_header(name, self.table.columns)
        if name is None or found:
            return found
        if name != "patient":
            return name
        others = [other for other in PATIENTS if find_header(other, self.table.columns)]
        if not others and _plain(bag) == "slide_id":
            others = [other for other in ("case_id",) if find_header(other, self.table.columns)]
        if others:
            return self._one_of(others, "patient", self.table.columns) or others[0]
        if difflib.get_close_matches(name, map(_plain, self.table.columns), n=1, cutoff=0.8):
            return name  # a misspelled name must not separate the bags of a patient
        self.notes.append("no column of patients: every case counts as its own patient; --columns#patient names it")
        return None

    def case(self, bag: str, patient: str | None) -> str | None:
        if self.columns.case is not None:
            return self.header(self.columns.case)
        found = [header for name in CASES if (header := find_header(name, self.table.columns)) and header != patient]
        if not found or _plain(bag) in TOOL_BAGS:
            return None
        cells = [row[found[0]] for row in self.table.rows if row[found[0]]]
        if len(set(cells)) == len(cells):
            return found[0]
        if patient is not None and _plain(bag) != "image":
            self.notes.append(
                f"column {found[0]!r} has repeated values and is not used: the file names are the case IDs"
            )
            return None
        if patient is None and self.columns.patient is not None:
            self.errors.append(
                f"column {found[0]!r} has repeated values and there is no column of patients: give --columns#patient "
                f"{found[0]} if these are patients, or another case ID to each row"
            )
        return found[0]

    def site(self) -> str | None:
        if self.columns.site is not None:
            return self.header(self.columns.site)
        used = self._labels()
        found = [h for name in SITES if (h := find_header(name, self.table.columns)) and h not in used]
        if len(found) > 1 and _plain(found[0]) != "site":
            self.notes.append(f"columns {_listed(found)} may be the site, and none is taken: give --columns#site")
            return None
        if found and found[0] != "site":
            self.notes.append(f"column {found[0]!r} is taken for the site")
        return found[0] if found else None

    def split(self) -> str | None:
        if self.columns.split is not None:
            return self.header(self.columns.split)
        found = find_header("split", self.table.columns)
        if found is None or found in self._labels() or not any(row[found] for row in self.table.rows):
            return None
        cells = sorted({row[found] for row in self.table.rows if row[found]})
        if any(cell.lower() in PARTS for cell in cells):
            return found  # another cell is then an error of its row: a part that was set apart must not be trained on
        self.notes.append(f"column {found!r} is not used: parts are train, val and test, got {cells[0]!r}")
        return None

    def label(self) -> str | Sequence[str] | None:
        """Return the column of the label, or of several labels, which a command line separates by commas."""
        label = self.columns.label
        if not isinstance(label, str) or "," not in label or find_header(label, self.table.columns):
            return label
        return [name.strip() for name in label.split(",")]

    def _labels(self) -> list[str]:
        label = self.label()
        names = [label] if isinstance(label, str) else list(label or [])
        return [self.header(name) for name in [*names, self.columns.time, self.columns.event] if name]

    def _one_of(self, names: Sequence[str], role: str, headers: Sequence[str]) -> str | None:
        found = [header for name in names if (header := find_header(name, headers))]
        if len(found) > 1:
            self.errors.append(f"columns {_listed(found)} may each be the {role}: give --columns#{role} {found[0]}")
        elif found:
            self.notes.append(f"column {found[0]!r} is taken for the {role}")
        return found[0] if found else None


def _plain(name: str) -> str:
    return re.sub(r"[\s\-]+", "_", name.strip().casefold())


def _listed(names: Sequence[str]) -> str:
    return " and ".join(map(repr, names))
