"""Patients of a study with the classes and the site by which folds are stratified."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_mil_ext.apps.study.tasks import Task
from monai_mil_ext.utils import BagKeys

__all__ = ["FoldPatient", "class_names", "describe_patients", "limit_folds"]

CASE, PATIENT = str(BagKeys.CASE_ID), str(BagKeys.PATIENT)
MAX_BINS = 5  # of the values of a regression
RARE = 3  # patients that a class needs for a test, a validation and a training part


@dataclass(frozen=True)
class FoldPatient:
    """Patient, who is never divided between parts of a fold.

    Args:
        name: ID of the patient.
        cases: case IDs, sorted.
        classes: classes of the cases, see :py:func:`class_names`.
        label: the one of ``classes`` with the fewest patients; empty for a regression.
        detail: finer stratum: all classes, or the quantile bin of the value of a regression.
        site: site of most of the cases, ``""`` if unknown.
        sites: sites of all cases.
    """

    name: str
    cases: tuple[str, ...]
    classes: frozenset[str]
    label: str
    detail: str
    site: str
    sites: frozenset[str]


def class_names(items: Sequence[Mapping[str, Any]], task: Task) -> list[frozenset[str]]:
    """Return the classes of each item: one, for several labels one of each that is known, for a regression none.

    Example:
        >>> [sorted(names) for names in class_names([{"label": [1, 0]}], Task("multilabel", ("edema", "mass")))]
        [['edema', 'no mass']]
    """
    if task.kind == "multilabel":
        names = [(f"no {name}", name) for name in task.class_names]
        rows = task.truth(items)
        return [frozenset(names[i][int(v)] for i, v in enumerate(row) if not np.isnan(v)) for row in rows]
    classes = task.classes(items)
    return [frozenset() for _ in items] if classes is None else [frozenset([name]) for name in classes]


def describe_patients(items: Sequence[Mapping[str, Any]], task: Task, num_folds: int) -> list[FoldPatient]:
    """Return the patients of items, sorted by name, so that the order of the items doesn't matter.

    Raises:
        ValueError: if there are no items, or two with the same case ID.
    """
    cases = Counter(str(item[CASE]) for item in items)
    repeated = [case for case, count in cases.items() if count > 1]
    if repeated or not items:
        got = f"{repeated[0]!r} more than once" if repeated else "no item"
        raise ValueError(f"`items` must be cases with different `case_id`, got {got}.")
    rows: dict[str, list[int]] = defaultdict(list)
    for row in sorted(range(len(items)), key=lambda i: str(items[i][CASE])):
        rows[str(items[row][PATIENT])].append(row)
    names = class_names(items, task)
    classes = {name: frozenset().union(*(names[i] for i in rows[name])) for name in rows}
    counts = Counter(name for found in classes.values() for name in found)
    bins = _quantile_bins(items, task, rows, num_folds)
    patients = []
    for name in sorted(rows):
        sites = Counter(str(items[i].get("site") or "").strip() for i in rows[name])
        patients.append(
            FoldPatient(
                name=name,
                cases=tuple(str(items[i][CASE]) for i in rows[name]),
                classes=classes[name],
                label=min(classes[name], key=lambda label: (counts[label], label), default=""),
                detail=bins.get(name) or "+".join(sorted(classes[name])),
                site=min(sites, key=lambda site: (-sites[site], site)),
                sites=frozenset(sites),
            )
        )
    return patients


def limit_folds(patients: Sequence[FoldPatient], task: Task, num_folds: int) -> int:
    """Return how many folds are possible, at most ``num_folds``.

    Each test part needs two patients and one of each class, of each label both values, of a survival an event. A class
    with fewer than three patients does not count if there are enough others.

    Raises:
        ValueError: if there are too few patients for two folds.
    """
    counts = Counter(name for patient in patients for name in patient.classes)
    needed, found = 1, {name: counts[name] for name in task.class_names}
    if task.kind == "multilabel":
        found = {name: min(counts[name], counts[f"no {name}"]) for name in task.class_names}
    elif task.has_times:
        found = {"event": counts["event"]}
    elif task.kind == "regression":
        needed = 0
    else:
        needed = 2
    ranked = sorted(found.values(), reverse=True)
    limits = [count for i, count in enumerate(ranked) if i < needed or count >= RARE]
    limit = min([num_folds, len(patients) // 2, *limits])
    if limit < 2:
        got = ", ".join([f"{len(patients)} in all", *(f"{count} of {name}" for name, count in found.items())])
        rule = {0: "4 patients", 1: "2 patients with each value of a label, or with an event,"}.get(
            needed, "2 patients of each of two classes"
        )
        raise ValueError(
            f"`items` must have at least {rule} for two folds, got {got}: add cases, or give fixed parts in the column "
            "`split`."
        )
    return limit


def _quantile_bins(
    items: Sequence[Mapping[str, Any]], task: Task, rows: Mapping[str, Sequence[int]], num_folds: int
) -> dict[str, str]:
    """Return the bin of the mean value of each patient of a regression, with at least a patient a fold in each."""
    num_bins = min(MAX_BINS, len(rows) // num_folds)
    if task.kind != "regression" or num_bins < 2:
        return {}
    truth = task.truth(items)
    values = {name: float(truth[list(found)].mean()) for name, found in rows.items()}
    edges = np.quantile(list(values.values()), np.linspace(0, 1, num_bins + 1)[1:-1])
    return {name: f"bin {np.searchsorted(edges, value)}" for name, value in values.items()}
