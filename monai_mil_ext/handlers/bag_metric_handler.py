"""Handler that computes a metric of bags in MONAI's evaluators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine
from monai.handlers import IgniteMetricHandler
from monai.utils import ensure_tuple
from torch import Tensor

from monai_mil_ext.metrics import BagIterationMetric
from monai_mil_ext.utils import BagKeys, drop_padding

__all__ = ["BagMetricHandler"]


class BagMetricHandler(IgniteMetricHandler):
    """Handler that passes two values of each bag to a metric, without padding, and with the case id.

    MONAI's own handler sees only the outputs of an engine, whereas instance labels and masks are in its batch. Items
    are decollated, as MONAI's evaluators leave them. Bags that a distributed sampler repeats are counted once, by
    ``case_id``, if items have one.

    Args:
        metric_fn: a metric of bags.
        pred: key of ``y_pred`` of the metric; values of several keys are concatenated, (N, A) and (N, D) to (N, A + D).
        label: key of ``y`` of the metric; None for a metric without labels.
        save_details: whether to put the values of each bag into ``engine.state.metric_details``.

    Raises:
        TypeError: when ``metric_fn`` is not a metric of bags.
        ValueError: when an item lacks a key.
    """

    def __init__(
        self,
        metric_fn: BagIterationMetric,
        pred: str | Sequence[str] = "pred",
        label: str | None = "label",
        save_details: bool = True,
    ) -> None:
        if not isinstance(metric_fn, BagIterationMetric):
            raise TypeError(f"`metric_fn` must be a BagIterationMetric, got {type(metric_fn).__name__}.")
        super().__init__(metric_fn=metric_fn, save_details=save_details)
        self.pred = ensure_tuple(pred)
        self.label = label

    @torch.no_grad()
    def iteration_completed(self, engine: Engine) -> None:
        """Add the bags of this iteration."""
        items = [{**b, **o} for b, o in zip(engine.state.batch, engine.state.output, strict=True)]
        cut_pred, cut_label = self.metric_fn.per_instance
        preds = [_concatenate([_value(item, key, cut_pred) for key in self.pred]) for item in items]
        labels = None if self.label is None else [_value(item, self.label, cut_label) for item in items]
        cases = [item[BagKeys.CASE_ID] for item in items if BagKeys.CASE_ID in item]
        self.metric_fn(preds, labels, case_id=cases or None)
        self._is_reduced = False


def _concatenate(values: Sequence[Tensor]) -> Tensor:
    if len(values) == 1:
        return values[0]
    return torch.cat([value.reshape(len(value), -1).double() for value in values], dim=1)


def _value(item: Mapping[str, Any], key: str, per_instance: bool) -> Tensor:
    if key not in item:
        raise ValueError(f"`pred` and `label` must be keys of an item, got {key!r} beside {', '.join(map(str, item))}.")
    value = torch.as_tensor(item[key]).as_subclass(Tensor)
    return drop_padding(value, item) if per_instance else value
