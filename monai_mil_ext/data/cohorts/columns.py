"""Meaning of the columns of a cohort table."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .class_labels import UNKNOWN, class_index, describe_words, label_text

__all__ = ["PARTS", "CohortColumns"]

PARTS = {
    "": "",
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True)
class CohortColumns:
    """Names of the columns of a cohort table and kind of its labels.

    Args:
        bag: column of the bag file: its path relative to the folder of the bags, its name without suffix, or the name
            of its slide.
        patient: column of the patient; ``None`` if every bag is from another patient.
        label: column of the class, or several columns of 0 and 1 (multi-label; an empty cell is an unknown label, NaN),
            or ``None`` for bags without labels.
        classes: names of the classes in the order of their indices; without them labels are class indices. ``1.0``,
            as data frames write it, is the index 1.
        numeric: whether ``label`` is a number, for regression.
        time: column of the time to event or censoring, for survival analysis; needs ``event``.
        event: column of the event indicator: 1 for an observed event, 0 for censoring.
        instance_label: column of a file with a label for every instance; labels in the bag file itself are read by
            :py:class:`monai_mil_ext.transforms.LoadBagd`.
        keep: further columns to keep, as text.
        num_classes: number of classes, so that a larger class index is an error of its row.
        case: column of the case ID; ``None`` takes the column ``case_id``, or else the name of the bag file.
        site: column of the site, such as the hospital; ``None`` takes the column ``site``, if there is one.
        split: column of the part, ``train``, ``val``, ``test`` or empty; ``None`` takes ``split``, if there is one.
        covariates: columns of clinical variables, which items have as text.

    Column names need not have the case of the table's headers. If there is no column ``bag``, ``image`` is taken, or
    the column of other tools: CLAM's ``slide_id`` (with ``case_id`` as the patient), STAMP's ``FILENAME``, TRIDENT's
    ``wsi``, torchmil's ``bag_name``. Without a column of patients every case is its own patient; a note says so.

    Example:
        >>> CohortColumns(label="grade", classes=["low", "high"]).values({"grade": "high"})
        ({'label': 1}, [])
    """

    bag: str = "bag"
    patient: str | None = "patient"
    label: str | Sequence[str] | None = "label"
    classes: Sequence[str] | None = None
    numeric: bool = False
    time: str | None = None
    event: str | None = None
    instance_label: str | None = None
    keep: Sequence[str] = ()
    num_classes: int | None = None
    case: str | None = None
    site: str | None = None
    split: str | None = None
    covariates: Sequence[str] = ()

    def __post_init__(self) -> None:
        if (self.time is None) != (self.event is None):
            raise ValueError(f"`time` and `event` must both be given, or neither, got {self.time!r}, {self.event!r}.")
        if self.numeric and self.classes is not None:
            raise ValueError(f"`classes` must be None if labels are numeric, got {list(self.classes)}.")

    @property
    def names(self) -> list[str]:
        """Names of all columns that are used."""
        labels = [self.label] if isinstance(self.label, str) else self.label or []
        single = [self.bag, self.patient, self.time, self.event, self.instance_label]
        groups = [self.case, self.site, self.split, *self.covariates]
        return list(dict.fromkeys([name for name in [*single, *labels, *self.keep, *groups] if name is not None]))

    def missing(self, columns: Sequence[str]) -> list[str]:
        """Return an error message for each column that a table lacks."""
        errors = []
        for name in self.names:
            if name not in columns:
                near = difflib.get_close_matches(name, columns, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                wanted = "'image' (the file of a case)" if name == self.bag == "bag" else repr(name)
                errors.append(f"column {wanted} must exist, got {', '.join(map(repr, columns))}{hint}")
        return errors

    def values(self, row: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
        """Return the labels and further columns of a row, and error messages."""
        values: dict[str, Any] = {name: row[name] for name in self.keep}
        if self.site is not None:
            values["site"] = row[self.site]
        if self.covariates:
            values["covariates"] = {name: row[name] for name in self.covariates}
        errors = []
        for key, name, read in self._readers():
            try:
                values[key] = read([row[n] for n in name] if isinstance(name, list) else row[name])
            except ValueError as error:
                errors.append(f"`{key}` must be {error}")
        return values, errors

    def _readers(self) -> list[tuple[str, Any, Any]]:
        readers: list[tuple[str, Any, Any]] = []
        if self.label is not None:
            multi_label = not isinstance(self.label, str)
            read = _multi_label if multi_label else _number if self.numeric else self._class
            readers.append(("label", list(self.label) if multi_label else self.label, read))
        if self.time is not None:
            readers += [("time", self.time, _time), ("event", self.event, _event)]
        if self.split is not None:
            readers.append(("split", self.split, _part))
        return readers

    def _class(self, cell: str) -> int:
        return class_index(cell, self.classes, self.num_classes)

    def words(self, rows: Sequence[Mapping[str, str]]) -> str:
        """Return the message on labels that are names of other classes than ``classes``, or an empty string."""
        if not isinstance(self.label, str) or self.numeric:
            return ""
        return describe_words((row[self.label] for row in rows), self.classes)


def _number(cell: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"a finite number, got {_repr_cell(cell)}")
    return number


def _time(cell: str) -> float:
    number = _number(cell)
    if number < 0:
        raise ValueError(f"a time of at least 0, got {cell!r}")
    return number


def _bit(cell: str) -> int:
    text = label_text(cell)
    if text not in ("0", "1"):
        raise ValueError(f"0 or 1, got {_repr_cell(cell)}")
    return int(text)


def _event(cell: str) -> int:
    """Return an event indicator, also as cBioPortal (``1:DECEASED``) and data frames (``True``) write it."""
    text = {"true": "1", "false": "0"}.get(cell.lower(), cell)
    return _bit(text[0] if re.match("[01]:", text) else text)


def _part(cell: str) -> str:
    part = PARTS.get(cell.lower())
    if part is None:
        raise ValueError(f"train, val, test or empty, got {cell!r}")
    return part


def _multi_label(cells: Sequence[str]) -> torch.Tensor:
    labels = [math.nan if cell.lower() in UNKNOWN else float(_bit(cell)) for cell in cells]
    if all(map(math.isnan, labels)):
        raise ValueError("0 or 1 in at least one column, got no known label")
    return torch.tensor(labels)


def _repr_cell(cell: str) -> str:
    return repr(cell) if cell else "an empty cell"
