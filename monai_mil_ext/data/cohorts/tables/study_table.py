"""Task of a study, found from the labels of its table."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from monai_mil_ext.data.cohorts.columns import CohortColumns
from monai_mil_ext.data.cohorts.table_file import Table
from monai_mil_ext.utils import check_choice, quote_names

from .column_names import NamedTable, find_header, open_table
from .label_kinds import find_kind, is_known

__all__ = ["StudyLabels", "label_columns", "study_columns", "survival_pairs"]

TASKS = ("classification", "multilabel", "ordinal", "regression", "survival", "cox")
TIMES = ("time", "time_to_event", "survival_time", "survival_months", "survival_days", "follow_up_time")
EVENTS = ("event", "status", "event_observed", "survival_event", "death", "dead")
ENDPOINTS = ("os", "pfs", "dfs", "dss", "rfs", "efs", "pfi", "dfi")
UNITS = ("time", "months", "days", "years")
CHOOSE = "--columns#time TIME --columns#event EVENT"


@dataclass(frozen=True)
class StudyLabels:
    """Kind of the labels of a study.

    Args:
        kind: ``"classification"``, ``"multilabel"``, ``"ordinal"``, ``"regression"``, ``"survival"`` or ``"cox"``.
        class_names: names of the classes in order, or of several labels; empty for numbers and times.
    """

    kind: str
    class_names: tuple[str, ...] = ()


def study_columns(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    columns: CohortColumns | None = None,
    task: str | None = None,
    class_names: Sequence[str] | None = None,
) -> tuple[CohortColumns, StudyLabels, list[str]]:
    r"""Find the columns of a table and the task from its labels.

    ========================================= ====================================================================
    labels                                    task
    ========================================= ====================================================================
    two words, or 0 and 1                     classification; the second class is the positive
    3 to 20 words, or 0, 1, 2, ...            classification; with ``task="ordinal"``, ordered classes
    several columns of 0 and 1                multilabel
    numbers with decimals, or more than 20    regression
    columns ``time`` and ``event``            survival; with ``task="cox"``, a Cox model. Also by the names of others,
                                              such as ``OS_months`` with ``OS_event`` or ``OS.time`` with ``OS``
    ========================================= ====================================================================

    Args:
        path: the table, or a list with one of the bags and one of their patients.
        columns: names of the columns, as far as they are not the usual ones.
        task: the task, if it can't be found from the labels.
        class_names: names of the classes in order. Without them numbers are ordered by value, and words by the alphabet
            after known negatives such as ``benign`` or ``wild type``.

    Returns:
        The columns by their names in the table, with the classes, for :py:func:`monai_mil_ext.data.load_cohort`; the
        kind of the labels; and notes on what was decided.

    Raises:
        FileNotFoundError: when there is no such table.
        ValueError: when columns are missing, or the task can't be found; the message names the option that decides.

    Example:
        >>> rows = ["case_id,image,label", "a,a.h5,tumor", "b,b.h5,normal", "c,c.h5,tumor"]
        >>> _ = Path("cohort.csv").write_text("\n".join(rows))
        >>> columns, labels, notes = study_columns("cohort.csv")
        >>> columns.bag, labels
        ('image', StudyLabels(kind='classification', class_names=('normal', 'tumor')))
        >>> print(notes[-1])
        2 classes in this order: 'normal' (1), 'tumor' (2); 'tumor' is the positive class (--class_names gives another
        order)
    """
    if task is not None:
        check_choice("task", task, TASKS)
    paths = [Path(path)] if isinstance(path, (str, os.PathLike)) else [Path(part) for part in path]
    named = open_table(paths, columns or CohortColumns())
    found, notes = label_columns(named, task)
    errors = [*named.errors, *found.missing(named.table.columns)]
    if errors:
        name = " + ".join(file.name for file in paths)
        raise ValueError("\n  ".join([f"{name} must have the columns of a study, got these errors:", *errors]))
    found, labels, more = _read_labels(named.table, found, task, class_names)
    return found, labels, [*named.notes, *notes, *more, *_missing_labels(named.table, found)]


def label_columns(named: NamedTable, task: str | None) -> tuple[CohortColumns, list[str]]:
    """Return the columns with either a label or a time and an event, and notes.

    Raises:
        ValueError: when it is not clear which columns these are.
    """
    columns, headers = named.columns, named.table.columns
    is_survival = task in ("survival", "cox")
    if columns.time is not None:
        return replace(columns, label=None), []
    has_label = not isinstance(columns.label, str) or columns.label in headers
    pairs = survival_pairs(headers)
    is_given = columns.label not in ("label", None)  # and an error if there is no such column
    if (has_label or is_given) and not is_survival:
        note = f"columns {pairs[0][0]!r} and {pairs[0][1]!r} are not used: --task survival takes them" if pairs else ""
        return columns, [note] if note else []
    if len(pairs) == 1 and (is_survival or task is None):
        time, event = pairs[0]
        return replace(columns, label=None, time=time, event=event), [
            f"columns {time!r} and {event!r} are taken for the time and the event"
        ]
    got = ", ".join(map(repr, headers))
    if len(pairs) > 1:
        got = ", ".join(f"{time!r} with {event!r}" for time, event in pairs)
    raise ValueError(
        f"columns of labels must be named by --columns#label LABEL, or {CHOOSE}, got {got}.{_hint(headers)}"
    )


def survival_pairs(headers: Sequence[str]) -> list[tuple[str, str]]:
    """Return the columns of a time and of an event that are in a table, by their usual names."""
    known = [(time, event) for time in TIMES for event in EVENTS]
    for end in ENDPOINTS:
        known += [(f"{end}_{unit}", event) for unit in UNITS for event in (f"{end}_event", f"{end}_status", end)]
    plain = [re.sub(r"[.\s]+", "_", header) for header in headers]
    found = [(find_header(time, plain), find_header(event, plain)) for time, event in known]
    return [(headers[plain.index(t)], headers[plain.index(e)]) for t, e in found if t is not None and e is not None]


def _hint(headers: Sequence[str]) -> str:
    censored = next((h for name in ("censorship", "censored") if (h := find_header(name, headers))), None)
    return "" if censored is None else f" In {censored!r}, 1 is a censored case: add a column of events, its opposite."


def _read_labels(
    table: Table, columns: CohortColumns, task: str | None, class_names: Sequence[str] | None
) -> tuple[CohortColumns, StudyLabels, list[str]]:
    label = columns.label
    if isinstance(label, str):
        kinds = ("classification", "ordinal", "regression")
        if columns.numeric and task is None:
            task = "regression"
        _check_task(task, kinds, f"the one column {label!r}")
        names = columns.classes if class_names is None else class_names
        kind, classes, notes = find_kind([row[label] for row in table.rows], task, names)
        if kind == "regression":
            if class_names is not None:
                raise ValueError(f"`class_names` must be None for a regression, got {list(class_names)}.")
            return replace(columns, numeric=True, classes=None, num_classes=None), StudyLabels(kind), notes
        found = replace(columns, numeric=False, classes=classes, num_classes=len(classes))
        return found, StudyLabels(kind, tuple(classes)), notes
    columns = replace(columns, classes=None, num_classes=None, numeric=False)
    if label is None:
        _check_task(task, ("survival", "cox"), "columns of time and event")
        return columns, StudyLabels(task or "survival"), []
    _check_task(task, ("multilabel",), "several columns of labels")
    names = list(map(str, class_names or label))
    if len(names) != len(label):
        raise ValueError(f"`class_names` must have a name for each of {len(label)} columns, got {names}.")
    return (
        columns,
        StudyLabels("multilabel", tuple(names)),
        [f"{len(names)} labels of 0 and 1: {', '.join(quote_names(names))}"],
    )


def _check_task(task: str | None, choices: Sequence[str], given: str) -> None:
    if task is not None and task not in choices:
        raise ValueError(f"`task` must be {' or '.join(choices)} for {given}, got {task!r}.")


def _missing_labels(table: Table, columns: CohortColumns) -> list[str]:
    names = [columns.label] if isinstance(columns.label, str) else list(columns.label or [])
    unknown = all if names else any  # of several labels one is enough
    names = names or [name for name in (columns.time, columns.event) if name is not None]
    count = sum(unknown(not is_known(row[name], columns.classes) for name in names) for row in table.rows)
    return (
        [f"{count} of {len(table.rows)} rows have no label: a study leaves them out (--on_bad refuse ends it)"]
        if count
        else []
    )
