"""Metrics of bag classification."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monai_mil_ext.utils import check_choice, check_probabilities, class_probabilities, optional_dependency

from .bag_iteration_metric import BagIterationMetric

__all__ = ["BagClassificationMetric", "bag_values", "class_labels", "labels_and_probabilities"]

sklearn_metrics = optional_dependency("", "sklearn.metrics")

BAG_VALUES = ("bag_auroc", "bag_auprc", "bag_accuracy", "bag_balanced_accuracy", "bag_macro_f1", "bag_kappa")


def bag_values(
    label: Sequence[int], probability: np.ndarray[Any, Any], kappa_weights: str | None = None
) -> dict[str, float]:
    r"""Compute classification metrics from labels (B,) and class probabilities (B, C).

    ``bag_auroc``, ``bag_auprc`` (average precision: step-wise sum of recall increment times precision),
    ``bag_accuracy``, ``bag_balanced_accuracy`` (mean recall over the classes that occur), ``bag_macro_f1`` (mean over
    the classes that occur or are predicted) and ``bag_kappa``, Cohen's

    .. math:: \kappa = 1 - \frac{\sum_{ij} w_{ij} O_{ij}}{\sum_{ij} w_{ij} E_{ij}}, \quad
        w_{ij} = [i \ne j], |i - j| \text{ or } (i - j)^2

    For two classes, AUROC and AUPRC are those of the second class; for more, they are means over the classes that
    occur, each against the rest. Both are NaN if only one class occurs. Kappa is NaN if all labels and predictions are
    of the same class.

    Args:
        label: class of each bag, counted from 0.
        probability: class probabilities (B, C), or (B, 1) for the second of two classes; the class of the highest is
            predicted.
        kappa_weights: ``None``, ``"linear"`` or ``"quadratic"``; weights of kappa for ordinal classes.

    Returns:
        Metrics by name.

    Raises:
        ValueError: if labels are not classes below C, values are not probabilities that sum to 1, such as logits, or
            ``kappa_weights`` is not one of these.

    Example:
        >>> values = bag_values([0, 1, 1], np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]))
        >>> {name.removeprefix("bag_"): round(value, 2) for name, value in values.items()}
        {'auroc': 1.0, 'auprc': 1.0, 'accuracy': 0.67, 'balanced_accuracy': 0.75, 'macro_f1': 0.67, 'kappa': 0.4}
    """
    if kappa_weights is not None:
        check_choice("kappa_weights", kappa_weights, ["linear", "quadratic"])
    y, p = labels_and_probabilities(label, probability)
    predicted = p.argmax(axis=1)
    present = np.unique(y)
    classes = present[1:] if p.shape[1] == 2 else present
    if len(present) < 2:
        auroc = auprc = float("nan")
    else:
        auroc = float(np.mean([sklearn_metrics.roc_auc_score(y == c, p[:, c]) for c in classes]))
        auprc = float(np.mean([sklearn_metrics.average_precision_score(y == c, p[:, c]) for c in classes]))
    _, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(y, predicted, zero_division=0)
    balanced = float(recall[support > 0].mean())
    values = (auroc, auprc, float(np.mean(y == predicted)), balanced, float(f1.mean()))
    return dict(zip(BAG_VALUES, (*values, _kappa(y, predicted, p.shape[1], kappa_weights)), strict=True))


def _kappa(y: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any], num_classes: int, weights: str | None) -> float:
    """Compute kappa over all classes, since classes that do not occur still count in the distance |i - j|."""
    if len(np.union1d(y, predicted)) < 2:
        return float("nan")
    return float(sklearn_metrics.cohen_kappa_score(y, predicted, labels=range(num_classes), weights=weights))


def labels_and_probabilities(label: Any, probability: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return labels (B,) and class probabilities (B, C) as checked arrays, where (B, 1) becomes (B, 2).

    Raises:
        ValueError: if labels are not B classes below C, or values are not probabilities that sum to 1.

    Example:
        >>> labels_and_probabilities([1], [[0.75]])
        (array([1]), array([[0.25, 0.75]]))
    """
    values = np.asarray(probability, dtype=float)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"`probability` must be probabilities (B, C), got shape {values.shape}.")
    p: np.ndarray[Any, Any] = class_probabilities(values, name="probability").numpy()
    return class_labels(label, *p.shape), p


def class_labels(label: Any, num_bags: int, num_classes: int) -> np.ndarray[Any, Any]:
    """Return labels (B,) as a checked array of int64.

    Raises:
        ValueError: if labels are not ``num_bags`` classes below ``num_classes``.

    Example:
        >>> class_labels([0.0, 1.0], 2, 2)
        array([0, 1])
    """
    y = np.asarray(label)
    if y.shape != (num_bags,) or not np.isin(y, np.arange(num_classes)).all():
        raise ValueError(f"`label` must be {num_bags} classes in [0, {num_classes}), got {y}.")
    return y.astype(np.int64)


class BagClassificationMetric(BagIterationMetric):
    """Metric of :py:func:`bag_values` over all bags since the last reset.

    A warning says why AUROC or AUPRC is NaN: all bags are of one class.

    Args:
        metric: name without ``bag_``, for example ``"macro_f1"``, ``"auprc"`` or ``"balanced_accuracy"``.
        kappa_weights: see :py:func:`bag_values`.

    Raises:
        ValueError: if the metric is unknown, an input has another shape, labels are not classes, or ``y_pred`` are not
            probabilities that sum to 1, such as logits.

    Example:
        >>> metric = BagClassificationMetric("balanced_accuracy")
        >>> _ = metric(torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]), torch.tensor([0, 1, 1]))
        >>> metric.aggregate().item()
        0.75
    """

    rows_are_outputs = True
    per_instance = (False, False)

    def __init__(self, metric: str = "macro_f1", kappa_weights: str | None = None) -> None:
        super().__init__()
        check_choice("metric", metric, [name.removeprefix("bag_") for name in BAG_VALUES])
        if kappa_weights is not None:
            check_choice("kappa_weights", kappa_weights, ["linear", "quadratic"])
        self.metric = metric
        self.kappa_weights = kappa_weights

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Return rows (B, 1 + C) of label and probabilities, from which :py:meth:`aggregate` computes the metric."""
        if y_pred.ndim != 2:
            raise ValueError(f"`y_pred` must be probabilities (B, C), got {tuple(y_pred.shape)}.")
        if y is None or y.shape not in ((len(y_pred),), (len(y_pred), 1)):
            got = None if y is None else tuple(y.shape)
            raise ValueError(f"`y` must be classes (B,) = ({len(y_pred)},), got {got}.")
        check_probabilities(y_pred, name="y_pred")
        labels_and_probabilities(y.reshape(-1).cpu(), y_pred.double().cpu())
        return torch.cat([y.reshape(-1, 1).double(), y_pred.double()], dim=1)

    def aggregate(self) -> Tensor:
        """Compute the metric as a float64 tensor ()."""
        rows = self.get_buffer()
        if rows is None:
            raise ValueError("`y_pred` must be given before the value is computed, got none.")
        table = rows.cpu().numpy()
        values = bag_values(table[:, 0].astype(int).tolist(), table[:, 1:], self.kappa_weights)
        present = np.unique(table[:, 0]).astype(int)
        if self.metric in ("auroc", "auprc") and len(present) == 1:
            warnings.warn(f"{self.metric} is NaN: all {len(table)} bags are of class {present[0]}.", stacklevel=2)
        return torch.tensor(values[f"bag_{self.metric}"], dtype=torch.float64)
