"""What a reader finds who looks first where scores are highest."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_curve
from torch import Tensor

__all__ = ["localization_skill", "pointing_game", "precision_at_recall"]


def pointing_game(scores: Tensor, labels: Tensor) -> float:
    """1 if the instance of the highest of one bag's scores (N,) is positive by its labels (N,), 0 if it is negative.

    Several instances that share the highest score give the share of positives among them, which is what picking one
    by lot gives on average. A bag whose instances all have one label tells nothing: NaN.

    Raises:
        ValueError: when the two differ in shape, or a score is not finite.

    References:
        Zhang et al., "Top-down Neural Attention by Excitation Backprop", https://arxiv.org/abs/1608.00507

    Example:
        >>> import torch
        >>> pointing_game(torch.tensor([0.1, 0.7, 0.7, 0.2]), torch.tensor([0, 1, 0, 0]))
        0.5
    """
    s, y = _instances(scores, labels)
    return float("nan") if y.all() or not y.any() else float(y[s == s.max()].mean())


def precision_at_recall(scores: Tensor, labels: Tensor, recall: float) -> float:
    r"""Best precision of one bag's scores (N,) at a threshold that finds at least the share ``recall`` of positives.

    .. math:: \max_t \Big\{ \frac{TP(t)}{TP(t) + FP(t)} : \frac{TP(t)}{P} \ge r \Big\}

    over thresholds t at the scores; an instance of score >= t is found, so tied scores are found in one step. A bag
    whose instances all have one label (N,) tells nothing: NaN.

    Raises:
        ValueError: when the two differ in shape, a score is not finite, or ``recall`` is not in (0, 1].

    Example:
        >>> import torch
        >>> precision_at_recall(torch.tensor([0.9, 0.8, 0.7, 0.1]), torch.tensor([0, 1, 1, 0]), recall=0.5)
        0.666...
    """
    if not 0 < recall <= 1:
        raise ValueError(f"`recall` must be in (0, 1], got {recall}.")
    s, y = _instances(scores, labels)
    if y.all() or not y.any():
        return float("nan")
    precision, reached, _ = precision_recall_curve(y, s)
    return float(precision[reached >= recall - 1e-9].max())  # 3/10 reaches a recall computed as 0.1 + 0.2


def localization_skill(auroc: float, center_auroc: float) -> float:
    r"""Share of what the centre baseline leaves to win that is won: 1 is perfect, 0 is no better than the centre.

    .. math:: \frac{\mathrm{AUC} - \mathrm{AUC}_c}{1 - \mathrm{AUC}_c}

    NaN where the centre (:py:func:`center_scores`) is perfect already, or either value is NaN. Take it of means over
    bags: of one bag it has no lower bound.

    Raises:
        ValueError: when a value is not in [0, 1].

    Example:
        >>> localization_skill(0.875, center_auroc=0.75)
        0.5
    """
    for name, value in (("auroc", auroc), ("center_auroc", center_auroc)):
        if value < 0 or value > 1:
            raise ValueError(f"`{name}` must be in [0, 1], got {value}.")
    return float("nan") if center_auroc == 1 else (auroc - center_auroc) / (1 - center_auroc)


def _instances(scores: Tensor, labels: Tensor) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise ValueError(
            f"`labels` must have the shape (N,) of `scores` {tuple(scores.shape)}, got {tuple(labels.shape)}."
        )
    if not scores.isfinite().all():
        raise ValueError(f"`scores` must be finite, got {scores}.")
    return scores.detach().double().cpu().numpy(), labels.cpu().numpy() > 0
