"""Description of the cohort of a study: cases, patients, sites, labels and bags."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.apps.study.tasks import Task
from monai_mil_ext.data import InstanceSource, bag_sizes
from monai_mil_ext.utils import BagKeys, optional_dependency

__all__ = ["bag_sources", "describe_cohort", "median_follow_up"]

lifelines = optional_dependency("study", "lifelines")
PATIENT = str(BagKeys.PATIENT)
Items = Sequence[Mapping[str, Any]]


def describe_cohort(items: Items, task: Task) -> dict[str, Any]:
    """Count the cases, patients, sites and labels of a cohort, for its report."""
    names = task.classes(items)
    sites = sorted({str(item.get("site") or "") for item in items} - {""})
    facts: dict[str, Any] = {"num_cases": len(items), "num_patients": len({str(item[PATIENT]) for item in items})}
    if names is None:
        values = task.truth(items)
        facts["labels"] = {"mean": values.mean(), "sd": values.std(), "min": values.min(), "max": values.max()}
    elif task.kind == "multilabel":
        facts["labels"] = _label_counts(items, task)
    else:
        facts["labels"] = dict(sorted(Counter(names).items()))
    if task.has_times:
        facts["median_follow_up"] = median_follow_up(task.truth(items))
    if sites:
        facts["num_sites"] = len(sites)
    if sites and names is not None:
        facts["sites"] = {site: _site_labels([i for i in items if str(i.get("site")) == site], task) for site in sites}
    source = next(iter(bag_sources(items)), InstanceSource())
    facts["encoder"] = source.encoder or ""
    facts["instances"] = "slices" if source.plane else "tiles" if source.mpp or source.magnification else "instances"
    facts["median_instances"] = float(np.median(bag_sizes(items)))
    return facts


def _label_counts(items: Items, task: Task) -> dict[str, int]:
    """Return the number of positive cases of each label; a case with several labels counts for each."""
    positive = (task.truth(items) == 1).sum(axis=0)
    return dict(zip(task.class_names, positive.tolist(), strict=True))


def _site_labels(items: Items, task: Task) -> dict[str, int]:
    return _label_counts(items, task) if task.kind == "multilabel" else dict(Counter(task.classes(items) or ()))


def median_follow_up(truth: NDArray[Any]) -> float | None:
    """Return the median time under observation of labels (R, 2), by the reverse Kaplan-Meier method.

    Events end the observation as censoring does in a survival curve. None if half of the cases are not observed to
    their end.

    References:
        Schemper and Smith, "A Note on Quantifying Follow-up in Studies of Failure Time", Controlled Clinical Trials
        17, 1996

    Example:
        >>> median_follow_up(np.array([[1.0, 1.0], [2.0, 0.0], [4.0, 0.0], [5.0, 0.0]]))
        4.0
    """
    median = float(lifelines.KaplanMeierFitter().fit(truth[:, 0], 1 - truth[:, 1]).median_survival_time_)
    return median if np.isfinite(median) else None


def bag_sources(items: Items) -> list[InstanceSource]:
    """Return the source of the bags; none if they differ in something that can't be mixed."""
    try:
        return [InstanceSource.from_items(items)]
    except ValueError:
        return []
