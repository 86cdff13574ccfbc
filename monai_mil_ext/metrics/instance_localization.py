"""How well scores find the positive instances of a positive bag."""

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
    """AUROC, average precision and positive mass of one bag's scores (N,) against its instance labels (N,).

    AUROC counts a tie as one half. Average precision is the step-wise sum of recall increment times precision, tied
    scores as one step. Mass is the share of the scores' sum on positive instances (scores are weights, so >= 0; NaN
    where they aren't or sum to nothing). A bag whose instances all have one label tells nothing: every value is NaN.

    Raises:
        ValueError: when the two differ in length.

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
    """Scores (N,) of the centre baseline, ``-|j - (N + 1) / 2|`` for j = 1, ..., N: nothing is seen or fitted.

    Free of ties but for mirror pairs, unlike a density in float32, which is zero far from the centre.

    Example:
        >>> center_scores(4).tolist()
        [-1.5, -0.5, -0.5, -1.5]
    """
    return -(torch.arange(1, num_instances + 1, dtype=torch.float64) - (num_instances + 1) / 2).abs()


class InstanceLocalizationMetric(BagIterationMetric):
    """Mean of one value over positive bags: one bag at a time, then averaged (macro).

    Bags whose instances all have one label are left out, as Harvey et al. do.

    Args:
        metric: ``"auroc"``, ``"average_precision"``, ``"mass"`` (:py:func:`localization`), ``"pointing_game"``
            (:py:func:`pointing_game`), ``"precision_at_<r>"`` with a recall r such as 0.1
            (:py:func:`precision_at_recall`), or ``"skill"``: :py:func:`localization_skill` of the mean AUROC against
            that of the centre.

    Raises:
        ValueError: when ``metric`` is another word, or scores and labels differ in shape.

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
        word, _, number = metric.rpartition("_")
        if word != "precision_at" or not is_share(number):
            check_choice("metric", metric, METRICS)
        self.metric = metric
        self._recall = float(number) if word == "precision_at" else None

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Row (B, 1) of each bag, for the skill (B, 2), from scores (B, N) or (B, N, A) and instance labels (B, N)."""
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
        """Mean over the bags that have a value since the last reset, or the skill of the means; NaN if none has."""
        means = self.mean()
        if self.metric != "skill":
            return means[0]
        return torch.tensor(localization_skill(*means.tolist()), dtype=torch.float64)
