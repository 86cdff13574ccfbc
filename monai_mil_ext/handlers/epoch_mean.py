"""Handler that gives the mean of an output over each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import Tensor

__all__ = ["EpochMeanHandler", "report_mean"]


class EpochMeanHandler:
    """Handler that stores the mean of a scalar output over each epoch, such as the loss, in ``engine.state.metrics``.

    Unlike a handler that logs each iteration, it reads the values once an epoch, so that no step waits for a GPU. Pass
    it before the handlers that print or draw the metrics. The mean is over the iterations of all processes.

    Args:
        key: key of the scalar in ``engine.state.output``, of a trainer with ``decollate=False`` or of its items.
        name: name of the metric.

    Example:
        >>> engine = Engine(lambda engine, batch: {"loss": torch.tensor(float(batch))})
        >>> EpochMeanHandler().attach(engine)
        >>> engine.run([1, 2, 6]).metrics
        {'train_loss': 3.0}
    """

    def __init__(self, key: str = "loss", name: str = "train_loss") -> None:
        self.key = key
        self.name = name
        self._values: list[Tensor] = []

    def attach(self, engine: Engine) -> None:
        """Attach to an engine."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._values.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._note)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._report)

    def _note(self, engine: Any) -> None:
        output = engine.state.output
        items = [output] if isinstance(output, dict) else output[:1]  # a scalar is the same in all items of a batch
        for item in items:
            if self.key not in item:
                raise ValueError(f"`key` must be in the output ({', '.join(map(str, item))}), got {self.key!r}.")
            self._values.append(torch.as_tensor(item[self.key]).detach().float())

    def _report(self, engine: Any) -> None:
        report_mean(engine, self.name, self._values)


def report_mean(engine: Any, name: str, values: Sequence[Tensor]) -> None:
    """Set the metric ``name`` of an engine to the mean of scalars of all processes, or remove it if there are none."""
    engine.state.metrics.pop(name, None)
    if values:
        sums = torch.stack([torch.stack(list(values)).sum(), values[0].new_tensor(len(values))])
        total, count = idist.all_reduce(sums).tolist()
        engine.state.metrics[name] = total / count
