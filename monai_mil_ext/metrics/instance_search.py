"""Ranking metrics of instances: pointing game, precision at recall, localization skill."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_curve
from torch import Tensor

__all__ = ["localization_skill", "pointing_game", "precision_at_recall"]


def pointing_game(scores: Tensor, labels: Tensor) -> float:
    """Return 1 if the instance with the highest score is positive, 0 if it is negative.

    If several instances share the highest score, the result is the fraction of positives among them, the expectation
    of a random choice.

    Args:
        scores: scores (N,) of the instances of a bag.
        labels: instance labels (N,).

    Returns:
        The result; NaN if the instances have only one label.

    Raises:
        ValueError: if ``scores`` and ``labels`` differ in shape, or a score is not finite.

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
    r"""Compute the best precision of a threshold on the scores whose recall is at least ``recall``.

    .. math:: \max_t \Big\{ \frac{TP(t)}{TP(t) + FP(t)} : \frac{TP(t)}{P} \ge r \Big\}

    over thresholds t among the scores; instances with a score >= t are predicted as positive, tied scores together.

    Args:
        scores: scores (N,) of the instances of a bag.
        labels: instance labels (N,).
        recall: minimum recall r in (0, 1].

    Returns:
        The precision; NaN if the instances have only one label.

    Raises:
        ValueError: if ``scores`` and ``labels`` differ in shape, a score is not finite, or ``recall`` is not in (0, 1].

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
    return float(precision[reached >= recall - 1e-9].max())  # with tolerance, so that 3/10 reaches 0.1 + 0.2


def localization_skill(auroc: float, center_auroc: float) -> float:
    r"""Compute the skill score of an AUROC relative to the center baseline.

    .. math:: \frac{\mathrm{AUC} - \mathrm{AUC}_c}{1 - \mathrm{AUC}_c}

    1 is perfect and 0 no better than the baseline (:py:func:`center_scores`). Apply it to means over bags: for a single
    bag it has no lower bound.

    Args:
        auroc: AUROC of the scores.
        center_auroc: AUROC of the center baseline.

    Returns:
        The skill; NaN if the baseline is perfect or a value is NaN.

    Raises:
        ValueError: if a value is not in [0, 1].

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
