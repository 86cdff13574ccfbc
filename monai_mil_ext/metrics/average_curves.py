"""What a threshold on scores finds of the positive instances, as curves."""

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
    """Curves (P,) that are means over bags.

    Attributes:
        share: from 0 to 1, the axis of both: false positive rate, and recall.
        sensitivity: true positive rate at that false positive rate.
        precision: at that recall.
        num_bags: how many bags have instances of both kinds.
    """

    share: NDArray[np.float64]
    sensitivity: NDArray[np.float64]
    precision: NDArray[np.float64]
    num_bags: int


def localization_curves(
    scores: Sequence[Tensor], labels: Sequence[Tensor], num_points: int = 201
) -> LocalizationCurves:
    """ROC and precision-recall curves of instances, of each bag, and then the mean over bags at each point.

    Every bag counts once, as in :py:class:`InstanceLocalizationMetric`, and none of its scores is compared with those
    of another bag: attention of a long bag is smaller. The areas are the mean AUROC and, of the steps of precision, the
    mean average precision, but for the grid. Bags whose instances are all alike are left out.

    Args:
        scores: (N,) of each bag.
        labels: (N,) of each bag.
        num_points: of the curves.

    Raises:
        ValueError: when the two differ in number, or no bag is left.

    Example:
        >>> import torch
        >>> found = localization_curves([torch.tensor([0.9, 0.8, 0.1])], [torch.tensor([1, 0, 1])], num_points=3)
        >>> found.sensitivity.tolist(), found.precision.round(2).tolist()
        ([0.5, 0.5, 1.0], [1.0, 1.0, 0.67])
    """
    check_positive(num_points=num_points)
    if len(scores) != len(labels):
        raise ValueError(f"`labels` must be as many as `scores` ({len(scores)}), got {len(labels)}.")
    pairs = [(s.detach().double().cpu().numpy(), y.cpu().numpy() > 0) for s, y in zip(scores, labels, strict=True)]
    both = [(s, y) for s, y in pairs if y.any() and not y.all()]
    if not both:
        raise ValueError(f"`labels` must be of both kinds in one bag at least, got none in {len(labels)} bags.")
    share = np.linspace(0, 1, num_points)
    return LocalizationCurves(
        share,
        np.mean([_sensitivity(s, y, share) for s, y in both], axis=0),
        np.mean([_precision(s, y, share) for s, y in both], axis=0),
        len(both),
    )


def _sensitivity(scores: NDArray[Any], labels: NDArray[Any], rate: NDArray[np.float64]) -> NDArray[np.float64]:
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    return np.interp(rate, false, true)  # where the curve rises straight up, NumPy takes the upper end


def _precision(scores: NDArray[Any], labels: NDArray[Any], recall: NDArray[np.float64]) -> NDArray[np.float64]:
    """Precision at the highest threshold that reaches each recall."""
    precision, reached, _ = precision_recall_curve(labels, scores)
    precision, reached = precision[-2::-1], reached[-2::-1]  # upwards, without the end that scikit-learn adds
    return precision[np.searchsorted(reached, recall - 1e-12)]
