"""ROC and precision-recall curves of instances, averaged over bags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve
from torch import Tensor

from monai_mil_ext.utils import check_positive

__all__ = ["LocalizationCurves", "localization_curves"]


class LocalizationCurves(NamedTuple):
    """Curves (P,) averaged over bags.

    Attributes:
        share: common axis from 0 to 1: false positive rate of ``sensitivity`` and recall of ``precision``.
        sensitivity: true positive rate at each false positive rate.
        precision: precision at each recall.
        num_bags: number of bags with both positive and negative instances.
    """

    share: NDArray[np.float64]
    sensitivity: NDArray[np.float64]
    precision: NDArray[np.float64]
    num_bags: int


def localization_curves(
    scores: Sequence[Tensor], labels: Sequence[Tensor], num_points: int = 201
) -> LocalizationCurves:
    """Compute ROC and precision-recall curves of instances per bag and average them over bags.

    Every bag counts once, as in :py:class:`InstanceLocalizationMetric`. Scores of different bags are not compared,
    because attention weights are smaller in larger bags. Up to the resolution of the grid, the areas are the mean AUROC
    and the mean average precision. Bags with only positive or only negative instances are excluded.

    Args:
        scores: scores (N,) of each bag.
        labels: instance labels (N,) of each bag.
        num_points: number of points of the curves.

    Returns:
        The curves.

    Raises:
        ValueError: if ``scores`` and ``labels`` differ in length, or no bag has instances of both labels.

    Example:
        >>> import torch
        >>> curves = localization_curves([torch.tensor([0.9, 0.8, 0.1])], [torch.tensor([1, 0, 1])], num_points=3)
        >>> curves.sensitivity.tolist(), curves.precision.round(2).tolist()
        ([0.5, 0.5, 1.0], [1.0, 1.0, 0.67])
    """
    check_positive(num_points=num_points)
    if len(scores) != len(labels):
        raise ValueError(f"`labels` must be as many as `scores` ({len(scores)}), got {len(labels)}.")
    pairs = [(s.detach().double().cpu().numpy(), y.cpu().numpy() > 0) for s, y in zip(scores, labels, strict=True)]
    mixed = [(s, y) for s, y in pairs if y.any() and not y.all()]
    if not mixed:
        raise ValueError(f"`labels` must be of both kinds in one bag at least, got none in {len(labels)} bags.")
    share = np.linspace(0, 1, num_points)
    return LocalizationCurves(
        share,
        np.mean([_sensitivity(s, y, share) for s, y in mixed], axis=0),
        np.mean([_precision(s, y, share) for s, y in mixed], axis=0),
        len(mixed),
    )


def _sensitivity(scores: NDArray[Any], labels: NDArray[Any], rate: NDArray[np.float64]) -> NDArray[np.float64]:
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    return np.interp(rate, false, true)  # at vertical steps, NumPy returns the upper end


def _precision(scores: NDArray[Any], labels: NDArray[Any], recall: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the precision at the highest threshold that reaches each recall."""
    precision, reached, _ = precision_recall_curve(labels, scores)
    precision, reached = precision[-2::-1], reached[-2::-1]  # ascending, without the end point that scikit-learn adds
    return precision[np.searchsorted(reached, recall - 1e-12)]
