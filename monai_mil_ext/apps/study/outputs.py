"""Loss, targets and outputs of a network for the task of a study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from monai_mil_ext.losses import (
    CoxLoss,
    DiscreteSurvivalLoss,
    MultiLabelLoss,
    OrdinalLoss,
    RegressionLoss,
    ordinal_probabilities,
    survival_curve,
)
from monai_mil_ext.metrics import bag_values, concordance_index
from monai_mil_ext.utils import optional_dependency

from .tasks import Task

__all__ = [
    "OutputArrays",
    "TaskOutputs",
    "bin_note",
    "cross_validated_loss",
    "fold_tasks",
    "main_metric",
    "with_bin_edges",
]

sklearn_metrics = optional_dependency("", "sklearn.metrics")
RARE = 3  # classes are weighted if the largest has more than this many times the cases of the rarest
NUM_BINS = 4
Items = Sequence[Mapping[str, Any]]


class OutputArrays(NamedTuple):
    """Outputs (R, D) of bags and, for a discrete-time survival, the probability (R, T) to survive each finite bin."""

    output: NDArray[np.float64]
    survival: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class TaskOutputs:
    """Conversion between the logits of a network, the labels and the outputs of :py:class:`Task`.

    Args:
        task: task of the study.
        center: mean of the values to regress, in the training part.
        scale: their standard deviation.
        weights: weight of each class; of each label of a multi-label task, that of its positive cases.

    Example:
        >>> items = [{"label": value} for value in (10.0, 30.0)]
        >>> outputs = TaskOutputs.fit(Task("regression"), items)
        >>> outputs.targets(items).tolist(), outputs.arrays(torch.tensor([[1.0]])).output.tolist()
        ([-1.0, 1.0], [[30.0]])
    """

    task: Task
    center: float = 0.0
    scale: float = 1.0
    weights: tuple[float, ...] = ()

    @classmethod
    def fit(cls, task: Task, items: Items) -> TaskOutputs:
        """Estimate what depends on the labels of the training part."""
        if task.kind == "regression":
            truth = task.truth(items)
            return cls(task, float(np.nanmean(truth)), float(np.nanstd(truth)) or 1.0)
        if task.kind == "classification":
            counts = np.bincount(task.truth(items), minlength=len(task.class_names))
            if 0 < counts.min() < counts.max() / RARE:
                weights = counts.sum() / (len(counts) * counts)
                return cls(task, weights=tuple(map(float, weights)))
        if task.kind == "multilabel":
            truth = task.truth(items)
            positive, negative = (truth == 1).sum(axis=0), (truth == 0).sum(axis=0)
            if (np.minimum(positive, negative) < np.maximum(positive, negative) / RARE).any() and positive.all():
                return cls(task, weights=tuple(map(float, np.maximum(negative, 1) / positive)))
        return cls(task)

    @property
    def note(self) -> str:
        """Sentence on the weights of the classes; empty without weights."""
        if not self.weights:
            return ""
        what = "positive cases" if self.task.kind == "multilabel" else "classes"
        named = (f"{name} {weight:.3g}" for name, weight in zip(self.task.class_names, self.weights, strict=True))
        return f"The loss weights the {what} by their frequency in the training part: {', '.join(named)}."

    def loss(self) -> nn.Module:
        """Return the loss of logits and :py:meth:`targets`."""
        weights = list(self.weights) or None
        if self.task.kind == "classification":
            return nn.CrossEntropyLoss(weight=None if weights is None else torch.tensor(weights))
        if self.task.kind == "multilabel":
            return MultiLabelLoss(weights)
        kinds: dict[str, type[nn.Module]] = {
            "ordinal": OrdinalLoss,
            "regression": RegressionLoss,
            "survival": DiscreteSurvivalLoss,
            "cox": CoxLoss,
        }
        return kinds[self.task.kind]()

    def targets(self, items: Items) -> Tensor:
        """Return the labels of items as the loss takes them."""
        truth = self.task.truth(items)
        if self.task.kind == "regression":
            return torch.as_tensor((truth - self.center) / self.scale, dtype=torch.float32)
        if self.task.kind == "survival":
            return torch.as_tensor(self._bins(truth), dtype=torch.float32)
        if self.task.kind in ("classification", "ordinal"):
            return torch.as_tensor(truth, dtype=torch.int64)
        return torch.as_tensor(truth, dtype=torch.float32)

    def _bins(self, truth: NDArray[Any]) -> NDArray[Any]:
        """Return bin and event (R, 2); an event after the last bin is not observed."""
        edges = np.asarray(self.task.bin_edges)
        bins = np.searchsorted(edges, truth[:, 0], side="left")
        event = np.where(bins < len(edges), truth[:, 1], 0)
        return np.stack([np.minimum(bins, len(edges) - 1), event], axis=1)

    def arrays(self, logits: Tensor) -> OutputArrays:
        """Return the outputs of logits (R, K) that were trained on :py:meth:`targets`."""
        z = logits.detach().double().cpu()
        kind = self.task.kind
        if kind == "survival":
            curve = survival_curve(z).numpy()
            finite = np.isfinite(self.task.bin_edges)
            return OutputArrays(-curve.sum(axis=1, keepdims=True), curve[:, finite])
        if kind == "regression":
            return OutputArrays(z.numpy() * self.scale + self.center)
        if kind == "cox":
            return OutputArrays(z.numpy())
        if kind == "ordinal":
            return OutputArrays(ordinal_probabilities(z).numpy())
        return OutputArrays((z.sigmoid() if kind == "multilabel" else z.softmax(dim=1)).numpy())


def with_bin_edges(task: Task, items: Items, num_bins: int = NUM_BINS) -> Task:
    """Return a task of discrete survival with right edges of its time bins, if it has none yet.

    The edges are quantiles of the times of the observed events, so that each bin has as many events; the last bin is
    open.

    Example:
        >>> items = [{"time": time, "event": 1} for time in range(1, 9)]
        >>> with_bin_edges(Task("survival"), items).bin_edges
        (2.75, 4.5, 6.25, inf)
    """
    if task.kind != "survival" or task.bin_edges:
        return task
    times = _event_times(task, items)
    if not len(times):
        raise ValueError("`items` must have an observed event after time 0, got none.")
    inner = np.unique(np.quantile(times, np.arange(1, num_bins) / num_bins))
    return replace(task, bin_edges=(*map(float, inner), math.inf))


def fold_tasks(task: Task, items: Items, train_parts: Sequence[Items]) -> tuple[Task, list[Task]]:
    """Return the task in which all networks of a study answer, and the task of the training of each fold.

    They differ for discrete survival without bins: a network is trained with the bins of the events of its training
    part, so that it depends on no time of its test part, and answers at the quantiles of all events
    (:py:class:`monai_mil_ext.networks.nets.RebinnedSurvivalNet`), of which none is later than the last edge of a fold.
    A training part without an event takes the bins of all.

    Example:
        >>> items = [{"time": time, "event": 1} for time in range(1, 9)]
        >>> task, folds = fold_tasks(Task("survival"), items, [items[:6], items[2:]])
        >>> task.bin_edges, [fold.bin_edges for fold in folds]
        ((2.75, 4.5, 4.75, inf), [(2.25, 3.5, 4.75, inf), (4.25, 5.5, 6.75, inf)])
    """
    whole = with_bin_edges(task, items)
    if whole == task:
        return task, [task] * len(train_parts)
    folds = [with_bin_edges(task, part) if len(_event_times(task, part)) else whole for part in train_parts]
    last = min(fold.bin_edges[-2] for fold in folds)
    shared = dict.fromkeys(min(edge, last) for edge in whole.bin_edges[:-1])
    return replace(task, bin_edges=(*shared, math.inf)), folds


def _event_times(task: Task, items: Items) -> NDArray[Any]:
    """Return the times of the observed events, without those at time 0, where no bin can end."""
    truth = task.truth(items).reshape(-1, 2)
    return np.asarray(truth[(truth[:, 1] == 1) & (truth[:, 0] > 0), 0])


def bin_note(task: Task, by_fold: bool = True) -> str:
    """Return a sentence on the time bins of a discrete survival; empty for other tasks.

    Example:
        >>> bin_note(Task("survival", bin_edges=(6.0, 12.5, math.inf)))
        'Networks were trained with bins of time by the events of their training part, and predict survival at 6 and
        12.5, by quantiles of all events.'
    """
    inner = [f"{edge:.4g}" for edge in task.bin_edges if math.isfinite(edge)]
    if task.kind != "survival" or not inner:
        return ""
    listed = " and ".join(filter(None, [", ".join(inner[:-1]), inner[-1]]))
    if not by_fold:
        return f"Time was divided at {listed}."
    return (
        "Networks were trained with bins of time by the events of their training part, and predict survival at "
        f"{listed}, by quantiles of all events."
    )


def cross_validated_loss(logits: Tensor, labels: Tensor, train_logits: Tensor, train_labels: Tensor) -> float:
    """Compute the loss of a Cox model on a validation part whose cases are at risk together with those of the training.

    It is the cross-validated partial likelihood (Verweij and van Houwelingen, Statistics in Medicine 12, 1993): the one
    of both parts without the one of the training part, negative, for each event. Compared with one another only, the
    few cases of a validation part tell little.

    Args:
        logits: logits (V, 1) of the validation part.
        labels: times and events (V, 2).
        train_logits: logits (T, 1) of the training part.
        train_labels: times and events (T, 2).

    Example:
        >>> train = torch.tensor([[2.0], [0.0]]), torch.tensor([[1.0, 1.0], [9.0, 1.0]])
        >>> case = torch.tensor([[5.0, 1.0]])
        >>> [round(cross_validated_loss(torch.tensor([[z]]), case, *train), 3) for z in (1.0, -1.0)]
        [0.594, 1.356]
    """
    total = CoxLoss(reduction="sum")
    both = total(torch.cat([logits, train_logits]), torch.cat([labels, train_labels]))
    events = max(1.0, float(labels[:, 1].sum()))
    return float(both - total(train_logits, train_labels)) / events


def main_metric(task: Task, truth: NDArray[Any], output: NDArray[np.float64]) -> dict[str, float]:
    """Return the name and value of the metric of a task, of the predictions of one network; NaN if it has none.

    Of predictions that are not finite, nothing is returned.

    Example:
        >>> main_metric(Task("regression"), np.array([1.0, 2.0]), np.array([[1.0], [2.0]]))
        {'r2': 1.0}
    """
    if not np.isfinite(output).all():
        return {}
    if task.kind == "regression":
        return {"r2": float(sklearn_metrics.r2_score(truth, output[:, 0])) if len(truth) > 1 else math.nan}
    if task.has_times:
        risk, time, event = (torch.as_tensor(v.copy()) for v in (output[:, 0], truth[:, 0], truth[:, 1]))
        return {"c_index": concordance_index(risk, time, event)}
    if task.kind == "multilabel":
        values = [_label_auroc(truth[:, i], output[:, i]) for i in range(truth.shape[1])]
        known = [value for value in values if not math.isnan(value)]
        return {"auroc": float(np.mean(known)) if known else math.nan}
    name, weights = ("kappa", "quadratic") if task.kind == "ordinal" else ("auroc", None)
    return {name: bag_values(truth.astype(int).tolist(), output, weights)[f"bag_{name}"]}


def _label_auroc(truth: NDArray[Any], output: NDArray[np.float64]) -> float:
    known = ~np.isnan(truth)
    if len(np.unique(truth[known])) < 2:
        return math.nan
    return float(sklearn_metrics.roc_auc_score(truth[known], output[known]))
