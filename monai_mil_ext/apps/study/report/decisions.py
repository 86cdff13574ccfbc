"""Thresholds of folds, and the values of decisions by confusion matrices of many resamples at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.apps.study.predictions import Predictions
from monai_mil_ext.apps.study.tasks import Task
from monai_mil_ext.metrics import threshold_at_youden

from .rankings import mean_of_finite

__all__ = [
    "Thresholds",
    "binary_values",
    "choose_threshold",
    "confusion_counts",
    "confusion_values",
    "fold_thresholds",
    "kappa",
    "pooled_thresholds",
]

Array = NDArray[Any]
Thresholds = list[dict[str, Any]]
MIN_CASES = 3  # of each class, to choose a threshold
DEFAULT = 0.5


def choose_threshold(label: Array, score: Array) -> float:
    """Return the threshold of Youden's index, or NaN if cases are too few or scores don't separate the classes.

    Args:
        label: labels (N,) of 0 and 1; NaN if unknown.
        score: probabilities (N,) of a validation part.

    Example:
        >>> choose_threshold(np.array([0, 0, 0, 1, 1, 1]), np.array([0.1, 0.2, 0.1, 0.3, 0.4, 0.3]))
        0.25
        >>> choose_threshold(np.array([0, 1]), np.array([0.1, 0.2]))
        nan
    """
    known = np.isfinite(label) & np.isfinite(score)
    y, s = label[known].astype(int), score[known]
    if min((y == 0).sum(), (y == 1).sum()) < MIN_CASES:
        return float("nan")
    threshold = threshold_at_youden(y.tolist(), s.tolist())
    separates = (s[y == 1] >= threshold).mean() > (s[y == 0] >= threshold).mean()
    return threshold if separates else float("nan")


def fold_thresholds(predictions: Predictions) -> tuple[dict[int, Array], list[str]]:
    """Choose a threshold for each fold and output on the validation part of the fold.

    Args:
        predictions: rows of both parts. Two exclusive classes have one threshold, several labels one each.

    Returns:
        Thresholds (D,) of each fold, and notes on those that are 0.5 because the validation part doesn't determine
        them.
    """
    val = predictions.of_part("val")
    multilabel = predictions.truth.ndim == 2
    outputs = range(predictions.output.shape[1]) if multilabel else [1]
    chosen: dict[int, Array] = {}
    for fold in np.unique(predictions.fold[np.array(predictions.part) == "test"]):
        rows = val.fold == fold
        truth = val.truth[rows].astype(float)
        labels = [truth[:, d] if multilabel else truth for d in outputs]
        chosen[int(fold)] = np.array(
            [choose_threshold(y, val.output[rows, d]) for y, d in zip(labels, outputs, strict=True)]
        )
    missing = [fold for fold, values in chosen.items() if np.isnan(values).any()]
    notes = []
    if missing:
        which = "all folds" if len(missing) == len(chosen) else f"fold{'s' * (len(missing) > 1)} {_listed(missing)}"
        notes.append(
            f"The threshold of {which} is {DEFAULT}{' for some labels' * multilabel}: the validation part has fewer "
            f"than {MIN_CASES} cases of a class, or its predictions do not separate the classes."
        )
    return {fold: np.where(np.isnan(values), DEFAULT, values) for fold, values in chosen.items()}, notes


def pooled_thresholds(predictions: Predictions, task: Task) -> Thresholds:
    """Choose the thresholds of a model that is applied to other cohorts, on the out-of-fold predictions of all cases.

    Args:
        predictions: predictions of a study, of which the rows of the part ``"test"`` are used.
        task: the task.

    Returns:
        A row with the threshold of two classes, or one for each of several labels; 0.5 where the cases are too few or
        not separated. No row for other tasks.
    """
    rows = predictions.of_part("test")
    truth = rows.truth.astype(float)
    if task.kind == "multilabel":
        found = {name: choose_threshold(truth[:, d], rows.output[:, d]) for d, name in enumerate(task.class_names)}
        return [{"label": name, "threshold": DEFAULT if np.isnan(t) else t} for name, t in found.items()]
    if not task.is_binary:
        return []
    threshold = choose_threshold(truth, rows.output[:, 1])
    return [{"threshold": DEFAULT if np.isnan(threshold) else threshold}]


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def confusion_counts(truth: Array, predicted: Array, weights: Array, num_classes: int) -> Array:
    """Count the cases of each class and prediction in each resample.

    Args:
        truth: classes (N,).
        predicted: predicted classes (N,).
        weights: number of copies (S, N) of each case in each resample.
        num_classes: number C of classes.

    Returns:
        Counts (S, C, C); rows are labels, columns are predictions.

    Example:
        >>> confusion_counts(np.array([0, 1, 1]), np.array([0, 0, 1]), np.ones((1, 3)), 2).tolist()
        [[[1.0, 0.0], [1.0, 1.0]]]
    """
    cells = np.eye(num_classes**2)[truth.astype(int) * num_classes + predicted.astype(int)]
    return np.asarray(weights @ cells).reshape(-1, num_classes, num_classes)


def _ratio(numerator: Array, denominator: Array) -> Array:
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def binary_values(counts: Array, positive: int = 1) -> dict[str, Array]:
    """Compute sensitivity, specificity and the predictive values of a class against the rest.

    Args:
        counts: counts (S, C, C) of :py:func:`confusion_counts`.
        positive: number of the class.

    Returns:
        ``sensitivity``, ``specificity``, ``ppv`` and ``npv`` (S,); NaN without cases or predictions of a class.
    """
    true, of_class, predicted = counts[:, positive, positive], counts[:, positive].sum(1), counts[:, :, positive].sum(1)
    total = counts.sum(axis=(1, 2))
    true_negative = total - of_class - predicted + true
    return {
        "sensitivity": _ratio(true, of_class),
        "specificity": _ratio(true_negative, total - of_class),
        "ppv": _ratio(true, predicted),
        "npv": _ratio(true_negative, total - predicted),
    }


def confusion_values(counts: Array) -> dict[str, Array]:
    """Compute accuracy, balanced accuracy and macro F1, as :py:func:`monai_mil_ext.metrics.bag_values` defines them.

    Args:
        counts: counts (S, C, C) of :py:func:`confusion_counts`.

    Returns:
        ``accuracy``, ``balanced_accuracy`` and ``macro_f1`` (S,).
    """
    true, of_class, predicted = np.diagonal(counts, axis1=1, axis2=2), counts.sum(axis=2), counts.sum(axis=1)
    return {
        "accuracy": _ratio(true.sum(axis=1), of_class.sum(axis=1)),
        "balanced_accuracy": mean_of_finite(_ratio(true, of_class).T),
        "macro_f1": mean_of_finite(_ratio(2 * true, of_class + predicted).T),
    }


def kappa(counts: Array) -> Array:
    """Compute Cohen's kappa (S,) with quadratic weights from counts (S, C, C).

    It is NaN if all labels are of the same class, where it says nothing.

    Example:
        >>> kappa(np.array([[[3.0, 0, 0], [0, 2, 1], [0, 0, 2]]])).round(3).tolist()
        [0.909]
    """
    number = np.arange(counts.shape[1])
    distance = np.square(number[:, None] - number)
    total = counts.sum(axis=(1, 2))
    expected = counts.sum(axis=2)[:, :, None] * counts.sum(axis=1)[:, None, :]
    observed = (counts * distance).sum(axis=(1, 2)) * total
    varied = (counts.sum(axis=2) > 0).sum(axis=1) > 1
    return np.where(varied, 1 - _ratio(observed, (expected * distance).sum(axis=(1, 2))), np.nan)
