"""Encoding of clinical variables: cells of a table as numbers, with missing values and categories."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.apps.study.tasks import Task
from monai_mil_ext.data.cohorts.class_labels import UNKNOWN
from monai_mil_ext.utils import check_choice

__all__ = ["CovariateEncoding", "Variable", "covariate_cells"]

KINDS = ("number", "category")
MISSING = UNKNOWN | {"unknown", "unk", "?", "-", "--", ".", "missing", "not available", "not reported", "not known"}
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
COMMA = re.compile(r"[+-]?\d*,\d+", re.ASCII)
NO_VALUE = "missing"  # name of the category of missing values
FEW = 10  # numbers of a column with text up to which they count as names of categories

Items = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Variable:
    """A clinical variable, with what was learned from the training part.

    Args:
        name: column of the table.
        kind: ``"number"`` or ``"category"``.
        center: median of a number, with which missing values are filled.
        has_missing: whether values were missing in the training part; a number then has an indicator.
        levels: categories of the training part by the number of cases, the most frequent first.
        shares: share of each level among the training cases, which encodes a category that is not among them.
    """

    name: str
    kind: str
    center: float = 0.0
    has_missing: bool = False
    levels: Sequence[str] = ()
    shares: Sequence[float] = ()

    @property
    def columns(self) -> list[str]:
        """Names of the encoded columns."""
        if self.kind == "category":
            return [f"{self.name}: {level}" for level in self.levels]
        return [self.name, f"{self.name}: {NO_VALUE}"] if self.has_missing else [self.name]

    def encode(self, cells: Sequence[str]) -> NDArray[np.float64]:
        """Return the cells as numbers (n, number of columns)."""
        if self.kind == "number":
            values = np.array([as_number(cell) for cell in cells])
            unknown = np.isnan(values)
            values = np.where(unknown, self.center, values)
            return np.column_stack([values, unknown] if self.has_missing else [values]).astype(float)
        index = {level.casefold(): i for i, level in enumerate(self.levels)}
        rows = np.tile(np.asarray(self.shares, dtype=float), (len(cells), 1))
        for row, cell in zip(rows, cells, strict=True):
            level = index.get(level_name(cell).casefold(), index.get(NO_VALUE))
            if level is not None:
                row[:] = np.eye(len(self.levels))[level]
        return rows

    def count_new(self, cells: Sequence[str]) -> int:
        """Return the number of cells that are neither missing nor of a form or category known from the training."""
        if self.kind == "number":
            return sum(not is_missing(cell) and math.isnan(as_number(cell)) for cell in cells)
        known = {level.casefold() for level in self.levels} | {NO_VALUE}
        return sum(level_name(cell).casefold() not in known for cell in cells)


@dataclass(frozen=True)
class CovariateEncoding:
    """Encoding of the clinical variables of a cohort as numbers, learned from the training part.

    A number that is missing becomes the median of the training part, with an indicator column if values were missing
    there. Categories become one column each, missing values a category of their own. A category that the training part
    lacks is treated as a missing value; :py:meth:`encode_notes` counts them.

    Args:
        variables: the variables in order.
        notes: sentences about columns that were left out, and why.

    Example:
        >>> items = [{"covariates": {"age": age, "sex": sex}} for age, sex in [("61", "f"), ("", "m"), ("55", "f")]]
        >>> encoding = CovariateEncoding.fit(items, kinds={"age": "number"})
        >>> encoding.columns
        ['age', 'age: missing', 'sex: f', 'sex: m']
        >>> encoding.encode([{"covariates": {"age": "70", "sex": "f"}}]).tolist()
        [[70.0, 0.0, 1.0, 0.0]]
    """

    variables: Sequence[Variable]
    notes: Sequence[str] = ()

    @classmethod
    def fit(
        cls,
        items: Items,
        columns: Sequence[str] | None = None,
        kinds: Mapping[str, str] | None = None,
        task: Task | None = None,
    ) -> CovariateEncoding:
        """Learn the encoding from the items of the training part.

        A column of numbers with more than two values, or with 0 and 1, is a number, any other a category. A column is
        left out, with a note, if it is constant, equals the label, or differs in nearly all cases like an identifier.

        Args:
            items: items with ``covariates``: text of the cell by column.
            columns: columns to use; by default all.
            kinds: ``"number"`` or ``"category"`` by column, where the rule above does not fit.
            task: task whose labels no column may equal; by default labels are not compared.

        Raises:
            ValueError: when a column is missing, has decimal commas, or numbers and text.
        """
        variables, notes = [], []
        for name, kind in find_kinds(items, columns, kinds).items():
            cells = covariate_cells(items, name)
            variable = learn_variable(name, cells, kind)
            reason = reason_to_leave_out(variable, cells, items, task)
            if reason:
                notes.append(f"The clinical variable {name!r} was left out: {reason}.")
            else:
                variables.append(variable)
        return cls(tuple(variables), tuple(notes))

    @property
    def columns(self) -> list[str]:
        """Names of the encoded columns."""
        return [column for variable in self.variables for column in variable.columns]

    def encode(self, items: Items) -> NDArray[np.float64]:
        """Return the variables of items as numbers (n, number of columns)."""
        blocks = [variable.encode(covariate_cells(items, variable.name)) for variable in self.variables]
        return np.hstack(blocks) if blocks else np.empty((len(items), 0))

    def encode_notes(self, items: Items) -> list[str]:
        """Return a sentence for each variable with values that the training part does not explain."""
        counts = {v.name: v.count_new(covariate_cells(items, v.name)) for v in self.variables}
        return [
            f"{count} of {len(items)} cases have a value of {name!r} that the training part lacks; "
            "it was treated as missing."
            for name, count in counts.items()
            if count
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the encoding as JSON."""
        return {"variables": [asdict(variable) for variable in self.variables], "notes": list(self.notes)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> CovariateEncoding:
        """Return the encoding that :py:meth:`to_json` saved."""
        return cls(tuple(Variable(**values) for values in content["variables"]), tuple(content["notes"]))


def covariate_cells(items: Items, name: str) -> list[str]:
    """Return the cells of a column, without blanks around them; ``""`` where an item lacks the column."""
    values = [(item.get("covariates") or {}).get(name) for item in items]
    return ["" if value is None else str(value).strip() for value in values]


def is_missing(cell: str) -> bool:
    """Return whether a cell states no value."""
    return cell.casefold() in MISSING


def as_number(cell: str) -> float:
    """Return the number of a cell, or NaN."""
    return float(cell) if NUMBER.fullmatch(cell) and math.isfinite(float(cell)) else math.nan


def level_name(cell: str) -> str:
    """Return the category of a cell; ``"none"`` is one, since it may mean that there is no disease."""
    if is_missing(cell) and cell.casefold() != "none":
        return NO_VALUE
    number = as_number(cell)
    return cell if math.isnan(number) else f"{number:.15g}"


def find_kinds(
    items: Items, columns: Sequence[str] | None = None, kinds: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Find whether the variables of items are numbers or categories; see :py:meth:`CovariateEncoding.fit`."""
    found = list(dict.fromkeys(name for item in items for name in item.get("covariates") or {}))
    absent = [name for name in columns or () if name not in found]
    if absent:
        raise ValueError(f"`columns` must be columns of the table, got {absent}.")
    chosen = found if columns is None else list(columns)
    given = dict(kinds or {})
    for name, kind in given.items():
        check_choice("name of `kinds`", name, chosen)
        check_choice("kinds", kind, KINDS)
    return {name: given.get(name) or find_kind(name, covariate_cells(items, name)) for name in chosen}


def learn_variable(name: str, cells: Sequence[str], kind: str) -> Variable:
    """Learn one variable from the cells of the training part."""
    if kind == "number":
        known = [cell for cell in cells if not is_missing(cell)]
        numbers = [number for number in map(as_number, known) if not math.isnan(number)]
        _check_numbers(name, known, numbers)
        return Variable(name, "number", float(np.median(numbers)) if numbers else 0.0, len(known) < len(cells))
    spelling: dict[str, str] = {}
    counts: dict[str, int] = {}
    for level in map(level_name, cells):
        key = level.casefold()
        spelling.setdefault(key, level)
        counts[key] = counts.get(key, 0) + 1
    keys = sorted(counts, key=lambda key: (-counts[key], key))
    shares = tuple(counts[key] / len(cells) for key in keys)
    return Variable(name, "category", 0.0, NO_VALUE in counts, tuple(spelling[key] for key in keys), shares)


def find_kind(name: str, cells: Sequence[str]) -> str:
    """Find whether cells are numbers or categories."""
    known = [cell for cell in cells if not is_missing(cell)]
    numbers = [number for number in map(as_number, known) if not math.isnan(number)]
    distinct = set(numbers)
    commas = [cell for cell in known if COMMA.fullmatch(cell)]
    if commas:
        _check_numbers(name, commas, [])
    if len(numbers) == len(known):
        return "number" if len(distinct) > 2 or distinct <= {0, 1} else "category"
    if len(distinct) > FEW:
        _check_numbers(name, known, numbers)
    return "category"


def _check_numbers(name: str, known: Sequence[str], numbers: Sequence[float]) -> None:
    if len(numbers) < len(known):
        text = next(cell for cell in known if math.isnan(as_number(cell)))
        raise ValueError(
            f"`{name}` must be a column of numbers with a decimal point or of categories, got {_shown(text)} "
            f"(in {len(known) - len(numbers)} of {len(known)} cases); correct the cells or give its kind."
        )


def _shown(text: str) -> str:
    """Return a cell for a message, unless it has words, which may name a person."""
    return "text" if len(text) > 20 or re.search(r"[^\W\d_]{2}", text) else repr(text)


def reason_to_leave_out(variable: Variable, cells: Sequence[str], items: Items, task: Task | None) -> str:
    """Return why a variable should not be used, or ``""``."""
    if all(map(is_missing, cells)):
        return "no training case has a value"
    block = variable.encode(cells)
    if not len(block) or np.ptp(block, axis=0).max() == 0:
        return "it has the same value in all training cases"
    if any(cells == [str(item.get(key, "")) for item in items] for key in ("case_id", "patient")):
        return "it identifies cases or patients"
    levels = len(variable.levels) - (NO_VALUE in variable.levels)
    if variable.kind == "category" and levels > max(2, sum(not is_missing(cell) for cell in cells) / 2):
        return "it differs in most cases, like an identifier or a date"
    return "it equals the label" if task is not None and equals_label(variable, block, task.truth(items)) else ""


def equals_label(variable: Variable, block: NDArray[np.float64], truth: NDArray[Any]) -> bool:
    """Return whether a variable states the label: the same number up to unit, or one category for each class."""
    labels = truth.reshape(len(truth), -1).astype(float)
    if variable.kind == "category":
        values = block.argmax(axis=1)
        known = np.array([level != NO_VALUE for level in variable.levels])[values]
    else:
        values, known = block[:, 0], block[:, -1] != 1 if variable.has_missing else np.ones(len(truth), dtype=bool)
    if known.sum() < 3:
        return False
    return any(_same(values[known], column[known], variable.kind == "number") for column in labels.T)


def _same(values: NDArray[np.float64], label: NDArray[np.float64], is_number: bool) -> bool:
    values, label = values[~np.isnan(label)], label[~np.isnan(label)]
    distinct, pairs = len(np.unique(values)), len(np.unique(np.column_stack([values, label]), axis=0))
    if pairs < 2 or distinct != pairs or len(np.unique(label)) != pairs:
        return False
    return not is_number or pairs == 2 or abs(np.corrcoef(values, label)[0, 1]) > 1 - 1e-9
