"""The table of an evaluation: values of bags and instances, by patient, with an interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from torch import Tensor

from .instance_localization import center_scores, localization
from .resampling import percentile_interval, resampled_rows

__all__ = ["bag_report", "bag_values", "bootstrap_interval", "instance_values"]

INSTANCE_VALUES = ("instance_auroc", "instance_ap", "positive_mass", "positive_share", "center_auroc", "center_ap")


def bag_values(label: Sequence[int], probability: np.ndarray[Any, Any]) -> dict[str, float]:
    """AUROC, accuracy and macro F1 of labels (B,) and class probabilities (B, C).

    With two classes AUROC is that of the second; with more it is the mean of one class against the rest. Where only
    one class is there, AUROC is NaN.

    Example:
        >>> bag_values([0, 1, 1], np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]))
        {'bag_auroc': 1.0, 'bag_accuracy': 0.666..., 'bag_macro_f1': 0.666...}
    """
    y, p = np.asarray(label), np.asarray(probability)
    predicted = p.argmax(axis=1)
    if len(np.unique(y)) < 2:
        auroc = float("nan")
    elif p.shape[1] == 2:
        auroc = float(roc_auc_score(y, p[:, 1]))
    else:
        auroc = float(np.mean([roc_auc_score(y == c, p[:, c]) for c in np.unique(y)]))
    macro_f1 = float(f1_score(y, predicted, average="macro", zero_division=0))
    return {"bag_auroc": auroc, "bag_accuracy": float(accuracy_score(y, predicted)), "bag_macro_f1": macro_f1}


def instance_values(scores: Tensor, labels: Tensor | None) -> dict[str, float]:
    """How one bag's scores (N,) find its positive instances, beside the baselines that look at nothing.

    ``instance_auroc``, ``instance_ap``, ``positive_mass`` of the scores (:py:func:`localization`), ``center_auroc`` and
    ``center_ap`` of :py:func:`center_scores`, and ``positive_share``, the mass that uniform scores would have. All are
    NaN without labels (N,) or where these are all alike.
    """
    if labels is None:
        return dict.fromkeys(INSTANCE_VALUES, float("nan"))
    own, center = localization(scores, labels), localization(center_scores(len(labels)), labels)
    share = localization(torch.ones(len(labels)), labels)["mass"]
    values = (own["auroc"], own["average_precision"], own["mass"], share, center["auroc"], center["average_precision"])
    return dict(zip(INSTANCE_VALUES, values, strict=True))


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


def bag_report(rows: Sequence[Mapping[str, Any]], num_samples: int = 1000) -> dict[str, Any]:
    """Every value of an evaluation, all bags together and by patient, with 95 % intervals.

    Args:
        rows: one a bag, with ``patient``, ``label``, ``probability`` (C,) and what :py:func:`instance_values` gives.
        num_samples: of the bootstrap. It draws patients where there are at least two of them, else bags, and
            ``resampled`` says which.

    Raises:
        ValueError: when there is no row.
    """
    if not rows:
        raise ValueError("`rows` must have at least one bag, got none.")
    patients = [row["patient"] for row in rows]
    by_patient = {p: [row for row in rows if row["patient"] == p] for p in dict.fromkeys(patients)}
    groups = patients if len(by_patient) > 1 else None
    return {
        "num_bags": len(rows),
        "num_patients": len(by_patient),
        "values": _values(rows),
        "interval_95": bootstrap_interval(rows, _values, groups, num_samples),
        "resampled": "bags" if groups is None else "patients",
        "patients": {p: {"num_bags": len(own), **_values(own)} for p, own in by_patient.items()},
    }


def _values(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    probability = np.stack([np.asarray(row["probability"], dtype=float) for row in rows])
    values = bag_values([row["label"] for row in rows], probability)
    for name in INSTANCE_VALUES:
        each = np.asarray([row[name] for row in rows], dtype=float)
        values[name] = float(np.nanmean(each)) if np.isfinite(each).any() else float("nan")
    return values
