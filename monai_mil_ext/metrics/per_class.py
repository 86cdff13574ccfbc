"""Metrics of each class, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from monai_mil_ext.utils import check_class_names, optional_dependency

from .bag_classification import labels_and_probabilities

__all__ = ["class_values"]

sklearn_metrics = optional_dependency("", "sklearn.metrics")


def class_values(
    label: Sequence[int], probability: np.ndarray[Any, Any], class_names: Sequence[str] | None = None
) -> dict[str, Any]:
    """Compute metrics of each class against the rest, and the confusion matrix, from probabilities (B, C).

    Args:
        label: class of each bag, counted from 0.
        probability: class probabilities (B, C), or (B, 1) for the second of two classes; the class of the highest is
            predicted.
        class_names: names of the C classes.

    Returns:
        ``classes``, with ``class`` (its number), ``name`` (if given), ``num_bags``, ``auroc``, ``auprc``, ``precision``
        (NaN if the class is never predicted), ``recall`` (NaN, as AUROC and AUPRC, without bags of the class) and
        ``f1`` of each class; and ``confusion_matrix``, whose rows are labels and whose columns are predictions.

    Raises:
        ValueError: see :py:func:`bag_values`, or if ``class_names`` are not one for each class.

    Example:
        >>> values = class_values([0, 1, 1], [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]], ["benign", "malignant"])
        >>> values["confusion_matrix"], [(row["name"], row["recall"]) for row in values["classes"]]
        ([[1, 0], [1, 1]], [('benign', 1.0), ('malignant', 0.5)])
    """
    y, p = labels_and_probabilities(label, probability)
    numbers = range(p.shape[1])
    check_class_names(class_names, p.shape[1])
    predicted = p.argmax(axis=1)
    scores = sklearn_metrics.precision_recall_fscore_support(y, predicted, labels=numbers, zero_division=np.nan)
    precision, recall, f1, support = scores
    classes = [
        {
            "class": c,
            **({} if class_names is None else {"name": str(class_names[c])}),
            "num_bags": int(support[c]),
            **_ranking(y == c, p[:, c]),
            "precision": float(precision[c]),
            "recall": float(recall[c]),
            "f1": float(f1[c]),
        }
        for c in numbers
    ]
    matrix = sklearn_metrics.confusion_matrix(y, predicted, labels=numbers)
    return {"classes": classes, "confusion_matrix": matrix.tolist()}


def _ranking(positive: np.ndarray[Any, Any], score: np.ndarray[Any, Any]) -> dict[str, float]:
    if positive.all() or not positive.any():
        return {"auroc": float("nan"), "auprc": float("nan")}
    return {
        "auroc": float(sklearn_metrics.roc_auc_score(positive, score)),
        "auprc": float(sklearn_metrics.average_precision_score(positive, score)),
    }
