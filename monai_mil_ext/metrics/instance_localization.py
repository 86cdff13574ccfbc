"""How well scores find the positive instances of a positive bag."""

from __future__ import annotations

from typing import Any

import torch
from monai.metrics import CumulativeIterationMetric
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from monai_mil_ext.utils import check_choice

__all__ = ["InstanceLocalizationMetric", "center_scores", "localization"]


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
    """Scores (N,) of the centre baseline, -|j - (N + 1) / 2| for j = 1, ..., N: nothing is looked at, nothing fitted.

    Free of ties but for mirror pairs, unlike a density in float32, which is zero far from the centre.

    Example:
        >>> center_scores(4).tolist()
        [-1.5, -0.5, -0.5, -1.5]
    """
    return -(torch.arange(1, num_instances + 1, dtype=torch.float64) - (num_instances + 1) / 2).abs()


class InstanceLocalizationMetric(CumulativeIterationMetric):
    """Mean of :py:func:`localization` over positive bags: one bag at a time, then averaged (macro).

    Bags whose instances all have one label are left out, as Harvey et al. do.

    Args:
        metric: ``"auroc"``, ``"average_precision"`` or ``"mass"``.

    Raises:
        ValueError: when ``metric`` is another word, or scores and labels differ in shape.

    References:
        Harvey, Loevlie, Hughes, "Normal Guidance is what Attention Needs", https://arxiv.org/abs/2605.27306
    """

    def __init__(self, metric: str = "auroc") -> None:
        super().__init__()
        check_choice("metric", metric, ["auroc", "average_precision", "mass"])
        self.metric = metric

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Value (B, 1) of each bag from scores (B, N) and instance labels (B, N)."""
        if y is None:
            raise ValueError("`y` must be the instance labels (B, N), got None.")
        values = [localization(scores, labels)[self.metric] for scores, labels in zip(y_pred, y, strict=True)]
        return torch.tensor(values, dtype=torch.float64).unsqueeze(-1)

    def aggregate(self) -> Tensor:
        """Mean over the bags that have a value since the last reset; NaN if none has."""
        return torch.as_tensor(self.get_buffer()).nanmean()
