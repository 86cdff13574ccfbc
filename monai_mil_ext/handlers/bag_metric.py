"""Any metric of bags as a handler of MONAI's evaluators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine
from monai.handlers import IgniteMetricHandler
from monai.utils import ensure_tuple
from torch import Tensor

from monai_mil_ext.metrics import BagIterationMetric
from monai_mil_ext.utils import BagKeys

__all__ = ["BagMetricHandler", "cut_padding"]


class BagMetricHandler(IgniteMetricHandler):
    """Gives a metric what a bag's item has under two keys, without padding, and with its case id.

    MONAI's own handler sees only the outputs of an engine; instance labels and masks are in its batch. Items are read
    decollated, as MONAI's evaluators leave them. Bags that a distributed sampler repeats are counted once, by
    ``case_id``, where items have one.

    Args:
        metric_fn: a metric of bags.
        pred: key of what the metric calls ``y_pred``; several are put side by side, (N, A) and (N, D) to (N, A + D).
        label: key of what it calls ``y``; None for a metric that takes none.
        save_details: whether to put the values of each bag into ``engine.state.metric_details``.

    Raises:
        TypeError: when ``metric_fn`` is another kind of metric.
        ValueError: when an item has no such key.
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
        preds = [self._together([_value(item, key, cut_pred) for key in self.pred]) for item in items]
        labels = None if self.label is None else [_value(item, self.label, cut_label) for item in items]
        named = [item[BagKeys.CASE_ID] for item in items if BagKeys.CASE_ID in item]
        self.metric_fn(preds, labels, case_id=named or None)
        self._is_reduced = False

    def _together(self, values: Sequence[Tensor]) -> Tensor:
        if len(values) == 1:
            return values[0]
        return torch.cat([value.reshape(len(value), -1).double() for value in values], dim=1)


def _value(item: Mapping[str, Any], key: str, per_instance: bool) -> Tensor:
    if key not in item:
        raise ValueError(f"`pred` and `label` must be keys of an item, got {key!r} beside {', '.join(map(str, item))}.")
    value = torch.as_tensor(item[key]).as_subclass(Tensor)
    return cut_padding(value, item) if per_instance else value


def cut_padding(value: Tensor, item: Mapping[str, Any]) -> Tensor:
    """The real instances of a value (N, ...), by the mask of its item if that has one.

    Example:
        >>> cut_padding(torch.tensor([0.5, 0.5, 0.0]), {"mask": torch.tensor([True, True, False])}).tolist()
        [0.5, 0.5]
    """
    return value[torch.as_tensor(item[BagKeys.MASK]).to(value.device)] if BagKeys.MASK in item else value
