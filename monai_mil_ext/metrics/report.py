"""Report of an evaluation: metrics of bags and instances with confidence intervals, also by patient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .bag_classification import BAG_VALUES, bag_values
from .bootstrap import percentile_interval, resampled_rows
from .instance_localization import center_scores, localization, localization_skill, pointing_game, precision_at_recall
from .per_class import class_values

__all__ = ["bag_report", "bootstrap_interval", "instance_values"]

INSTANCE_VALUES = (
    "instance_auroc",
    "instance_ap",
    "pointing_game",
    "precision_at_recall_10",
    "positive_mass",
    "positive_fraction",
    "center_auroc",
    "center_ap",
)


def instance_values(scores: Tensor, labels: Tensor | None) -> dict[str, float]:
    """Compute the localization metrics of a bag together with baselines that ignore the image.

    Args:
        scores: scores (N,) of the instances.
        labels: instance labels (N,), or None.

    Returns:
        ``instance_auroc``, ``instance_ap`` and ``positive_mass`` of the scores (:py:func:`localization`),
        ``pointing_game``, ``precision_at_recall_10`` (at a recall of 10 %), ``center_auroc`` and ``center_ap`` of
        :py:func:`center_scores`, and ``positive_fraction``, the mass of uniform scores. All are NaN if the instances
        have only one label. Without labels there are no values.
    """
    if labels is None:
        return {}
    model, center = localization(scores, labels), localization(center_scores(len(labels)), labels)
    uniform = localization(torch.ones(len(labels)), labels)
    values = {
        "instance_auroc": model["auroc"],
        "instance_ap": model["average_precision"],
        "pointing_game": pointing_game(scores, labels),
        "precision_at_recall_10": precision_at_recall(scores, labels, 0.1),
        "positive_mass": model["mass"],
        "positive_fraction": uniform["mass"],
        "center_auroc": center["auroc"],
        "center_ap": center["average_precision"],
    }
    return {name: values[name] for name in INSTANCE_VALUES}


def bootstrap_interval(
    rows: Sequence[Any],
    statistic: Callable[[Sequence[Any]], Mapping[str, float]],
    groups: Sequence[Any] | None = None,
    num_samples: int = 1000,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Compute the 95 % percentile bootstrap interval of each value of ``statistic``.

    Args:
        rows: rows from which samples are drawn with replacement.
        statistic: function that maps a list of rows to values by name; samples with a NaN value are excluded from the
            interval of that value.
        groups: group (patient) of each row; whole groups are drawn instead of rows.
        num_samples: number of bootstrap samples.
        seed: random seed.

    Returns:
        Lower and upper limit of each value.

    Example:
        >>> bootstrap_interval([1.0, 1.0, 1.0], lambda rows: {"mean": np.mean(rows)})
        {'mean': (1.0, 1.0)}
    """
    draws = resampled_rows(len(rows), groups, num_samples, seed)
    samples = [statistic([rows[i] for i in draw]) for draw in draws]
    return {name: percentile_interval([sample[name] for sample in samples]) for name in samples[0]}


def bag_report(
    rows: Sequence[Mapping[str, Any]],
    num_samples: int = 1000,
    kappa_weights: str | None = None,
    class_names: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Compute all metrics of an evaluation over all bags and by patient, with 95 % confidence intervals.

    The metrics are those of :py:func:`bag_values` and, if any bag has instance labels, the means over bags of
    :py:func:`instance_values`, and ``instance_skill``, the :py:func:`localization_skill` of these means. Metrics of
    bags are NaN if all bags have exactly the same probability, as from a network that only localizes, such as
    ``CenterPrior``; the metrics of each class are then missing.

    Args:
        rows: one row per bag with ``patient``, ``label``, ``probability`` (C,) and the values of
            :py:func:`instance_values`.
        num_samples: number of bootstrap samples; patients are drawn if there are at least two, otherwise bags.
        kappa_weights: see :py:func:`bag_values`.
        class_names: names of the C classes.

    Returns:
        ``num_bags``, ``num_patients``, ``class_names`` (if given), ``notes`` (one sentence for each reason why values
        are undefined or missing), ``values``, ``interval_95``, ``resampled`` (``"patients"`` or ``"bags"``),
        ``classes`` and ``confusion_matrix`` (:py:func:`class_values`), and ``patients`` with the values of each.

    Raises:
        ValueError: if there are no rows, or see :py:func:`bag_values` and :py:func:`class_values`.
    """
    if not rows:
        raise ValueError("`rows` must have at least one bag, got none.")
    labels, probability = _columns(rows)
    classifies = len(rows) == 1 or len({tuple(row["probability"]) for row in rows}) > 1
    values = partial(_values, classifies=classifies, localizes=_localizes(rows), kappa_weights=kappa_weights)
    patients = [row["patient"] for row in rows]
    by_patient = {p: [row for row in rows if row["patient"] == p] for p in dict.fromkeys(patients)}
    groups = patients if len(by_patient) > 1 else None
    by_class = class_values(labels, probability, class_names)
    return {
        "num_bags": len(rows),
        "num_patients": len(by_patient),
        **({} if class_names is None else {"class_names": list(map(str, class_names))}),
        "notes": _notes(rows, classifies),
        "values": values(rows),
        "interval_95": bootstrap_interval(rows, values, groups, num_samples),
        "resampled": "bags" if groups is None else "patients",
        **(by_class if classifies else {}),
        "patients": {
            p: {"num_bags": len(part), **values(part, localizes=_localizes(part))} for p, part in by_patient.items()
        },
    }


def _columns(rows: Sequence[Mapping[str, Any]]) -> tuple[list[int], np.ndarray[Any, Any]]:
    return [row["label"] for row in rows], np.stack([np.asarray(row["probability"], dtype=float) for row in rows])


def _localizes(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a bag has labels of its instances."""
    return any(INSTANCE_VALUES[0] in row for row in rows)


def _values(
    rows: Sequence[Mapping[str, Any]], classifies: bool, localizes: bool, kappa_weights: str | None
) -> dict[str, float]:
    values = bag_values(*_columns(rows), kappa_weights) if classifies else dict.fromkeys(BAG_VALUES, float("nan"))
    if not localizes:
        return values
    for name in INSTANCE_VALUES:
        column = np.asarray([row.get(name, np.nan) for row in rows], dtype=float)
        values[name] = float(np.nanmean(column)) if np.isfinite(column).any() else float("nan")
    return values | {"instance_skill": localization_skill(values["instance_auroc"], values["center_auroc"])}


def _notes(rows: Sequence[Mapping[str, Any]], classifies: bool) -> list[str]:
    notes, classes = [], {int(row["label"]) for row in rows}
    if not classifies:
        notes.append("bag metrics are undefined: all bags have the same probability")
    elif len(classes) == 1:
        notes.append(f"bag_auroc and bag_auprc are undefined: all {len(rows)} bags are of class {min(classes)}")
    if not _localizes(rows):
        notes.append("no metrics of instances: no bag has instance labels")
    elif not any(np.isfinite(row.get(INSTANCE_VALUES[0], np.nan)) for row in rows):
        notes.append("metrics of instances are undefined: no bag has positive and negative instances")
    return notes
