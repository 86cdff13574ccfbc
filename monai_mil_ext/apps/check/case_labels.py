"""Labels of a cohort: the task that they make, and the class of each case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from monai_mil_ext.data.cohorts import CohortColumns
from monai_mil_ext.data.cohorts.class_labels import UNKNOWN, label_text
from monai_mil_ext.data.cohorts.mixtures import class_labels

from .check_settings import CheckedCase, Problem

__all__ = ["CohortLabels", "read_labels"]

LABEL = "label"
MAX_CLASSES = 20  # different numbers from which they are values and not classes


class CohortLabels(NamedTuple):
    """Task of a cohort, names of its classes, and the class of each case by name of the label."""

    kind: str  # empty if there are no labels
    class_names: list[str]
    classes: dict[str, list[str | None]]
    problems: list[Problem]

    @property
    def sentence(self) -> str:
        """Sentence on the task of a study of the labels."""
        if not self.kind:
            return "There are no labels: nothing can be trained, only predicted."
        named = f" of {len(self.class_names)} classes: {', '.join(self.class_names)}" if self.class_names else ""
        return f"The labels make a {self.kind}{named}."


def read_labels(
    cases: Sequence[CheckedCase], task: str | None = None, class_names: Sequence[str] | None = None
) -> CohortLabels:
    """Find the task of the labels, and add a problem to each case without a valid one.

    Args:
        cases: the cases, with ``label``, or ``time`` and ``event``, as texts or values.
        task: the task, if it is not to be found.
        class_names: names of the classes in order.
    """
    kind, names = _find_task(cases, task, class_names)
    if not kind:
        return CohortLabels("", [], {}, [])
    several = next((c.item[LABEL] for c in cases if isinstance(c.item.get(LABEL), (list, Tensor))), None)
    columns = CohortColumns(
        label=None if kind == "survival" else LABEL if several is None else [str(i) for i in range(len(several))],
        classes=names if kind in ("classification", "ordinal") else None,
        numeric=kind == "regression",
        time="time" if kind == "survival" else None,
        event="event" if kind == "survival" else None,
    )
    items = [_values(case, columns, several is not None) for case in cases]
    classes = class_labels([item for item in items if item], names) if any(items) else {}
    spread = {label: iter(values) for label, values in classes.items()}
    aligned = {label: [next(values) if item else None for item in items] for label, values in spread.items()}
    if kind in ("classification", "ordinal") and LABEL in aligned:
        aligned[LABEL] = [None if item is None else names[item[LABEL]] for item in items]
    return CohortLabels(kind, names, aligned, _single(aligned))


def _find_task(
    cases: Sequence[CheckedCase], task: str | None, class_names: Sequence[str] | None
) -> tuple[str, list[str]]:
    """Return the task, and the names of the classes of a classification."""
    if any("time" in case.item and "event" in case.item for case in cases):
        return "survival", []
    labels = [case.item[LABEL] for case in cases if case.item.get(LABEL) is not None]
    if not labels:
        return "", []
    if any(isinstance(label, (list, Tensor)) for label in labels):
        return "multilabel", []
    texts = {label_text(label) for label in labels} - {""}
    words = {text for text in texts if text.lower() not in UNKNOWN}
    if task == "regression" or (task is None and class_names is None and _are_values(words, labels)):
        return "regression", []
    names = sorted(words) if class_names is None else [str(name) for name in class_names]
    if class_names is None and all(word.isdigit() for word in words):
        names = [str(i) for i in range(max(map(int, words), default=0) + 1)]
    return task or "classification", names


def _are_values(words: set[str], labels: Sequence[Any]) -> bool:
    if any(isinstance(label, float) for label in labels):
        return True
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        return False
    return len(words) > MAX_CLASSES or any(not number.is_integer() or number < 0 for number in numbers)


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


def _single(classes: dict[str, list[str | None]]) -> list[Problem]:
    """Return the problem of each label that has one class only."""
    problems = []
    for label, values in classes.items():
        found = {value for value in values if value is not None}
        if len(found) == 1:
            problems.append(Problem(f"`{label}` must have two classes or more, got {found.pop()!r} in all cases"))
    return problems
