"""Handler that weights the loss of each process by its number of bags in distributed training."""

from __future__ import annotations

from typing import Any

import ignite.distributed as idist
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys

from .monai_engines import check_trainer

__all__ = ["DDPLossWeightHandler"]


class DDPLossWeightHandler:
    r"""Handler that weights the loss of each process by its fraction of the bags of a step.

    .. math:: L_r \leftarrow \frac{R \, B_r}{\sum_{s=1}^R B_s} \, L_r

    ``DistributedDataParallel`` averages the gradients of :math:`R` processes regardless of the numbers :math:`B_r` of
    bags in their batches, so bags in small batches would have more weight. With this handler and a loss that is a mean
    over bags, the gradient equals that of a single process with all bags of the step, and so does the mean over
    processes of the loss in ``engine.state.output``. Terms that other handlers add to the loss are weighted as well,
    independent of the order of handlers. With one process the handler does nothing.

    A loss with class weights is a mean over weights, not over bags; each process still divides by its own sum of
    weights.

    Example:
        >>> import torch
        >>> from monai.engines import SupervisedTrainer
        >>> net, loss = torch.nn.Linear(2, 1), torch.nn.MSELoss()
        >>> batch = {"image": torch.ones(1, 2), "label": torch.ones(1, 1)}
        >>> trainer = SupervisedTrainer("cpu", 1, [batch], net, torch.optim.SGD(net.parameters(), lr=0.1), loss,
        ...     train_handlers=[DDPLossWeightHandler()])
        >>> trainer.run()
    """

    def attach(self, engine: Any) -> None:
        """Attach to a ``SupervisedTrainer``."""
        check_trainer(engine)
        engine.add_event_handler(Events.STARTED, self._start)

    def _start(self, engine: Any) -> None:
        event = IterationEvents.LOSS_COMPLETED
        if idist.get_world_size() > 1 and not engine.has_event_handler(self._weight_loss, event):
            engine.add_event_handler(event, self._weight_loss)  # at the start, so after the handlers of all terms

    def _weight_loss(self, engine: Any) -> None:
        output = engine.state.output
        bags = len(output[CommonKeys.IMAGE])
        output[CommonKeys.LOSS] = output[CommonKeys.LOSS] * (bags * idist.get_world_size() / idist.all_reduce(bags))
