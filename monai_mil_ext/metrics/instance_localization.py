"""Metrics of instance localization in positive bags."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from monai_mil_ext.utils import check_choice, head_mean

from .bag_metric import BagIterationMetric, is_share
from .instance_search import localization_skill, pointing_game, precision_at_recall

__all__ = ["InstanceLocalizationMetric", "center_scores", "localization"]

METRICS = ("auroc", "average_precision", "mass", "pointing_game", "precision_at_0.1", "skill")


def localization(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """Compute AUROC, average precision and positive mass of the scores of a bag.

    AUROC counts a tie as one half. Average precision is the step-wise sum of recall increment times precision, with
    tied scores as one step. Mass is the fraction of the sum of scores that lies on positive instances; it is NaN if
    scores are negative or sum to 0. All metrics are NaN if the instances of the bag have only one label.

    Args:
        scores: scores (N,) of the instances.
        labels: instance labels (N,).

    Returns:
        ``auroc``, ``average_precision`` and ``mass``.

    Raises:
        ValueError: if ``scores`` and ``labels`` differ in shape.

    Example:
        >>> localization(torch.tensor([0.1, 0.7, 0.2]), torch.tensor([0, 1, 0]))
        {'auroc': 1.0, 'average_precision': 1.0, 'mass': 0.69...}
    """
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise ValueError(
            f"`labels` must have the shape (N,) of `scores` {tuple(scores.shape)}, got {tuple(labels.shape)}."
        )
    y, s = labels.cpu().numpy() > 0, scores.detach().double().cpu().numpy()
    if y.all() or not y.any():
        return dict.fromkeys(("auroc", "average_precision", "mass"), float("nan"))
    mass = float(s[y].sum() / s.sum()) if (s >= 0).all() and s.sum() > 0 else float("nan")
    return {
        "auroc": float(roc_auc_score(y, s)),
        "average_precision": float(average_precision_score(y, s)),
        "mass": mass,
    }


def center_scores(num_instances: int) -> Tensor:
    """Return the scores (N,) of the center baseline, ``-|j - (N + 1) / 2|`` for j = 1, ..., N.

    The baseline depends on the position of an instance only. Unlike a density in float32, which vanishes far from the
    center, it has no ties except for mirrored pairs.

    Example:
        >>> center_scores(4).tolist()
        [-1.5, -0.5, -0.5, -1.5]
    """
    return -(torch.arange(1, num_instances + 1, dtype=torch.float64) - (num_instances + 1) / 2).abs()


class InstanceLocalizationMetric(BagIterationMetric):
    """Localization metric of instances, computed per bag and averaged over bags (macro average).

    Bags whose instances have only one label are excluded, as in Harvey et al.

    Args:
        metric: ``"auroc"``, ``"average_precision"``, ``"mass"`` (:py:func:`localization`), ``"pointing_game"``
            (:py:func:`pointing_game`), ``"precision_at_<r>"`` with a recall r such as 0.1
            (:py:func:`precision_at_recall`), or ``"skill"``: :py:func:`localization_skill` of the mean AUROC against
            that of the center baseline.

    Raises:
        ValueError: if the metric is unknown, or scores and labels differ in shape.

    References:
        Harvey, Loevlie, Hughes, "Normal Guidance is what Attention Needs", https://arxiv.org/abs/2605.27306

    Example:
        >>> metric = InstanceLocalizationMetric("precision_at_0.5")
        >>> _ = metric(torch.tensor([[0.6, 0.3, 0.1]]), torch.tensor([[0, 1, 0]]))
        >>> metric.aggregate().item()
        0.5
    """

    def __init__(self, metric: str = "auroc") -> None:
        super().__init__()
        kind, _, number = metric.rpartition("_")
        if kind != "precision_at" or not is_share(number):
            check_choice("metric", metric, METRICS)
        self.metric = metric
        self._recall = float(number) if kind == "precision_at" else None

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Return rows (B, 1), or (B, 2) for the skill, from scores (B, N) or (B, N, A) and labels (B, N)."""
        if y is None:
            raise ValueError("`y` must be the instance labels (B, N), got None.")
        rows = [self._row(head_mean(scores), labels) for scores, labels in zip(y_pred, y, strict=True)]
        return torch.tensor(rows, dtype=torch.float64)

    def _row(self, scores: Tensor, labels: Tensor) -> list[float]:
        if self._recall is not None:
            return [precision_at_recall(scores, labels, self._recall)]
        if self.metric == "pointing_game":
            return [pointing_game(scores, labels)]
        if self.metric == "skill":
            return [localization(s, labels)["auroc"] for s in (scores, center_scores(len(labels)))]
        return [localization(scores, labels)[self.metric]]

    def aggregate(self) -> Tensor:
        """Compute the mean over the bags that have a value, or the skill of the means; NaN without any."""
        means = self.mean()
        if self.metric != "skill":
            return means[0]
        return torch.tensor(localization_skill(*means.tolist()), dtype=torch.float64)
