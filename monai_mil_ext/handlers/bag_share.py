"""Several processes with batches of different size, trained as one with all of their bags."""

from __future__ import annotations

from typing import Any

import ignite.distributed as idist
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys

__all__ = ["BagShareHandler"]


class BagShareHandler:
    r"""Weighs the loss of each process by its share of the bags of a step, before its backward pass.

    .. math:: L_r \leftarrow \frac{R \, B_r}{\sum_{s=1}^R B_s} \, L_r

    ``DistributedDataParallel`` gives the mean of the gradients of :math:`R` processes, whatever the numbers
    :math:`B_r` of bags in their batches: a bag in a small batch would weigh more. With this, and a loss that is a mean
    over bags, the gradient is that of one process with all bags of the step, and the mean over processes of the loss in
    ``engine.state.output`` is its loss. Terms that other handlers add to the loss are weighed with it, wherever in the
    list this handler is. With one process it does nothing.

    A loss with class weights is a mean over weights, not over bags: there a process's own sum of weights remains its
    divisor.

    Example:
        >>> from ignite.engine import Engine
        >>> BagShareHandler().attach(Engine(lambda engine, batch: None))
    """

    def attach(self, engine: Any) -> None:
        """Follow the runs of a ``SupervisedTrainer``."""
        engine.add_event_handler(Events.STARTED, self._start)

    def _start(self, engine: Any) -> None:
        if idist.get_world_size() > 1 and not engine.has_event_handler(self._weigh, IterationEvents.LOSS_COMPLETED):
            engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._weigh)  # now, and so behind all terms

    def _weigh(self, engine: Any) -> None:
        output = engine.state.output
        bags = len(output[CommonKeys.IMAGE])
        output[CommonKeys.LOSS] = output[CommonKeys.LOSS] * (bags * idist.get_world_size() / idist.all_reduce(bags))
