"""Labels of a cohort: the task that they make, and the class of each case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from monai_mil_ext.data.cohorts import CohortColumns
from monai_mil_ext.data.cohorts.class_labels import UNKNOWN, label_text
from monai_mil_ext.data.cohorts.mixtures import class_labels
from monai_mil_ext.data.cohorts.tables.label_kinds import LabelKind, find_kind, is_known, order_names
from monai_mil_ext.utils import check_choice, quote_names

from .check_settings import CheckedCase, Problem

__all__ = ["CohortLabels", "read_labels"]

LABEL = "label"
SINGLE = ("classification", "ordinal", "regression")  # tasks of one label
NAMES = {
    "multilabel": "classification with several labels",
    "ordinal": "ordinal classification",
    "survival": "survival analysis",
}


class CohortLabels(NamedTuple):
    """Task of a cohort, names of its classes, and the class of each case by name of the label."""

    kind: str  # empty if there are no labels
    class_names: list[str]
    classes: dict[str, list[str | None]]
    problems: list[Problem]
    notes: list[Problem]

    @property
    def sentence(self) -> str:
        """Sentence on the task of a study of the labels."""
        if not self.kind:
            return "There are no labels: nothing can be trained, only predicted."
        if self.problems:
            return "The labels do not make a task yet: see the problems."
        named = (
            f" of {len(self.class_names)} classes: {', '.join(quote_names(self.class_names))}"
            if self.class_names
            else ""
        )
        return f"The labels make a {NAMES.get(self.kind, self.kind)}{named}."


def read_labels(
    cases: Sequence[CheckedCase], task: str | None = None, class_names: Sequence[str] | None = None
) -> CohortLabels:
    """Find the task of the labels, and add a problem to each case without a valid one.

    Args:
        cases: the cases, with ``label``, or ``time`` and ``event``, as texts or values.
        task: the task, if it is not to be found.
        class_names: names of the classes in order.
    """
    problems = []
    try:
        kind, names, notes = _find_task(cases, task, class_names)
    except ValueError as error:  # the cells are read nevertheless, so that empty ones are found at once
        kind, notes, problems = task or "classification", [], [Problem(str(error).removesuffix("."))]
        known = {text for case in cases if is_known(text := label_text(case.item.get(LABEL)))}
        names = list(map(str, class_names or order_names(sorted(known))))
    if not kind:
        return CohortLabels("", [], {}, [], [])
    several = next((c.item[LABEL] for c in cases if isinstance(c.item.get(LABEL), (list, Tensor))), None)
    columns = CohortColumns(
        label=None if kind == "survival" else LABEL if several is None else [str(i) for i in range(len(several))],
        classes=names if kind in ("classification", "ordinal") else None,
        numeric=kind == "regression",
        time="time" if kind == "survival" else None,
        event="event" if kind == "survival" else None,
    )
    items = [_values(case, columns, several is not None) for case in cases]
    if problems:
        return CohortLabels(kind, [], {}, problems, [])
    classes = class_labels([item for item in items if item], names) if any(items) else {}
    spread = {label: iter(values) for label, values in classes.items()}
    aligned = {label: [next(values) if item else None for item in items] for label, values in spread.items()}
    if kind in ("classification", "ordinal") and LABEL in aligned:
        aligned[LABEL] = [None if item is None else names[item[LABEL]] for item in items]
    return CohortLabels(kind, names, aligned, [], [Problem(note) for note in notes[1:]])  # the first is the sentence


def _find_task(cases: Sequence[CheckedCase], task: str | None, class_names: Sequence[str] | None) -> LabelKind:
    """Return the task, the names of the classes of a classification, and notes."""
    if any("time" in case.item and "event" in case.item for case in cases):
        return LabelKind("survival", [], [])
    labels = [case.item[LABEL] for case in cases if case.item.get(LABEL) is not None]
    if not labels:
        return LabelKind("", [], [])
    if any(isinstance(label, (list, Tensor)) for label in labels):
        return LabelKind("multilabel", [], [])
    if task is not None:
        check_choice("task", task, SINGLE)
    if task is None and any(isinstance(label, float) for label in labels):
        task = "regression"
    return find_kind([label_text(label) for label in labels], task, class_names)


def _values(case: CheckedCase, columns: CohortColumns, several: bool) -> dict[str, Any] | None:
    """Return the labels of a case, or None and a problem of the case."""
    item = case.item
    if isinstance(item.get(LABEL), Tensor):
        return {LABEL: item[LABEL]}
    if several:
        values = item.get(LABEL) or []
        row = {str(i): label_text(value) for i, value in enumerate(values)} or dict.fromkeys(columns.label or [], "")
    else:
        row = {key: _cell(item.get(key)) for key in (LABEL, "time", "event")}
    found, errors = columns.values(row)
    for error in errors:
        case.add(error)
    return None if errors else found


def _cell(value: Any) -> str:
    """Return a value as the text of a cell; that of an unknown label is empty."""
    text = label_text(value)
    return "" if text.lower() in UNKNOWN else text
