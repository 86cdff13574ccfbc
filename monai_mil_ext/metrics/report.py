"""The table of an evaluation: values of bags and instances, by patient, with an interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .bag_classification import BAG_VALUES, bag_values
from .instance_localization import center_scores, localization
from .instance_search import localization_skill, pointing_game, precision_at_recall
from .resampling import percentile_interval, resampled_rows

__all__ = ["bag_report", "bootstrap_interval", "instance_values"]

INSTANCE_VALUES = (
    "instance_auroc",
    "instance_ap",
    "pointing_game",
    "precision_at_recall_10",
    "positive_mass",
    "positive_share",
    "center_auroc",
    "center_ap",
)


def instance_values(scores: Tensor, labels: Tensor | None) -> dict[str, float]:
    """How one bag's scores (N,) find its positive instances, beside the baselines that look at nothing.

    ``instance_auroc``, ``instance_ap``, ``positive_mass`` of the scores (:py:func:`localization`), ``pointing_game``
    and ``precision_at_recall_10`` (%), ``center_auroc`` and ``center_ap`` of :py:func:`center_scores`, and
    ``positive_share``, the mass that uniform scores would have. All are NaN without labels (N,) or where these are all
    alike.
    """
    if labels is None:
        return dict.fromkeys(INSTANCE_VALUES, float("nan"))
    own, center = localization(scores, labels), localization(center_scores(len(labels)), labels)
    share = localization(torch.ones(len(labels)), labels)["mass"]
    values = {
        "instance_auroc": own["auroc"],
        "instance_ap": own["average_precision"],
        "pointing_game": pointing_game(scores, labels),
        "precision_at_recall_10": precision_at_recall(scores, labels, 0.1),
        "positive_mass": own["mass"],
        "positive_share": share,
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
    """95 % percentile interval of each value of ``statistic`` over rows drawn again with replacement.

    Args:
        rows: what the statistic is taken of.
        statistic: values by name of a list of rows; samples on which a value is NaN are left out of its interval.
        groups: as long as ``rows``; whole groups (patients) are drawn instead of rows.
        num_samples: how often to draw.
        seed: of the draw.

    Example:
        >>> bootstrap_interval([1.0, 1.0, 1.0], lambda rows: {"mean": np.mean(rows)})
        {'mean': (1.0, 1.0)}
    """
    draws = resampled_rows(len(rows), groups, num_samples, seed)
    samples = [statistic([rows[i] for i in draw]) for draw in draws]
    return {name: percentile_interval([sample[name] for sample in samples]) for name in samples[0]}


def bag_report(
    rows: Sequence[Mapping[str, Any]], num_samples: int = 1000, kappa_weights: str | None = None
) -> dict[str, Any]:
    """Every value of an evaluation, all bags together and by patient, with 95 % intervals.

    The values are those of :py:func:`bag_values`, the mean over bags of those of :py:func:`instance_values`, and
    ``instance_skill``, the :py:func:`localization_skill` of these means. What can't be had is NaN: values of instances
    without instance labels, and values of bags where all bags have the very same probability, which then is no answer
    to any of them (a network that only localises, such as ``CenterPrior``).

    Args:
        rows: one a bag, with ``patient``, ``label``, ``probability`` (C,) and what :py:func:`instance_values` gives.
        num_samples: of the bootstrap. It draws patients where there are at least two of them, else bags, and
            ``resampled`` says which.
        kappa_weights: see :py:func:`bag_values`.

    Raises:
        ValueError: when there is no row.
    """
    if not rows:
        raise ValueError("`rows` must have at least one bag, got none.")
    answers = len(rows) == 1 or len({tuple(row["probability"]) for row in rows}) > 1
    values = partial(_values, answers=answers, kappa_weights=kappa_weights)
    patients = [row["patient"] for row in rows]
    by_patient = {p: [row for row in rows if row["patient"] == p] for p in dict.fromkeys(patients)}
    groups = patients if len(by_patient) > 1 else None
    return {
        "num_bags": len(rows),
        "num_patients": len(by_patient),
        "values": values(rows),
        "interval_95": bootstrap_interval(rows, values, groups, num_samples),
        "resampled": "bags" if groups is None else "patients",
        "patients": {p: {"num_bags": len(own), **values(own)} for p, own in by_patient.items()},
    }


def _values(rows: Sequence[Mapping[str, Any]], answers: bool, kappa_weights: str | None) -> dict[str, float]:
    values = dict.fromkeys(BAG_VALUES, float("nan"))
    if answers:
        probability = np.stack([np.asarray(row["probability"], dtype=float) for row in rows])
        values = bag_values([row["label"] for row in rows], probability, kappa_weights)
    for name in INSTANCE_VALUES:
        each = np.asarray([row[name] for row in rows], dtype=float)
        values[name] = float(np.nanmean(each)) if np.isfinite(each).any() else float("nan")
    return values | {"instance_skill": localization_skill(values["instance_auroc"], values["center_auroc"])}
