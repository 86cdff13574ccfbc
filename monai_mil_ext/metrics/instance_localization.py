"""Localization of positive instances by their scores: curves, ranking and skill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_mil_ext.utils import check_choice, check_positive, head_mean, optional_dependency

from .bag_iteration_metric import BagIterationMetric, is_fraction

__all__ = [
    "InstanceLocalizationMetric",
    "LocalizationCurves",
    "center_scores",
    "localization",
    "localization_curves",
    "localization_skill",
    "pointing_game",
    "precision_at_recall",
]

sklearn_metrics = optional_dependency("", "sklearn.metrics")


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
        "auroc": float(sklearn_metrics.roc_auc_score(y, s)),
        "average_precision": float(sklearn_metrics.average_precision_score(y, s)),
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
        if kind != "precision_at" or not is_fraction(number):
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

    .. math:: \max_t \left\{ \frac{TP(t)}{TP(t) + FP(t)} : \frac{TP(t)}{P} \ge r \right\}

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
    precision, reached, _ = sklearn_metrics.precision_recall_curve(y, s)
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
    false, true, _ = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=False)
    return np.interp(rate, false, true)  # at vertical steps, NumPy returns the upper end


def _precision(scores: NDArray[Any], labels: NDArray[Any], recall: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the precision at the highest threshold that reaches each recall."""
    precision, reached, _ = sklearn_metrics.precision_recall_curve(labels, scores)
    precision, reached = precision[-2::-1], reached[-2::-1]  # ascending, without the end point that scikit-learn adds
    return precision[np.searchsorted(reached, recall - 1e-12)]
