"""Gradient clipping in MONAI trainers."""

from __future__ import annotations

import math
from typing import Any

from monai.engines.utils import IterationEvents
from torch import nn

from monai_mil_ext.handlers.monai_engines import check_not_attached, check_trainer
from monai_mil_ext.utils import check_positive_number

__all__ = ["GradientClipHandler"]


class GradientClipHandler:
    r"""Handler that clips the norm of the gradient before each step of the optimizer.

    .. math:: g \leftarrow g \, \min\left(1, \frac{c}{\lVert g \rVert_2}\right)

    where :math:`g` holds the gradients of all parameters as one vector and :math:`c` is ``max_norm``. With automatic
    mixed precision the gradients are unscaled first, so ``max_norm`` means the same with and without it. With gradient
    accumulation the accumulated gradient is clipped once, before the step.

    Args:
        network: network whose gradients are clipped.
        max_norm: largest norm of the gradient; ``None`` or infinity switches clipping off.

    Raises:
        ValueError: if ``max_norm`` is not positive.

    Example:
        >>> import torch
        >>> from monai.engines import SupervisedTrainer
        >>> net = torch.nn.Linear(2, 1, bias=False)
        >>> batch = {"image": torch.ones(1, 2), "label": torch.full((1, 1), 100.0)}
        >>> trainer = SupervisedTrainer("cpu", 1, [batch], net, torch.optim.SGD(net.parameters(), lr=0.1),
        ...     torch.nn.MSELoss(), train_handlers=[GradientClipHandler(net, max_norm=1.0)])
        >>> trainer.run()
        >>> print(f"{net.weight.grad.norm():.3f}")
        1.000
    """

    def __init__(self, network: nn.Module, max_norm: float | None) -> None:
        if max_norm is not None and max_norm != math.inf:
            check_positive_number(max_norm=max_norm)
        self.network = network
        self.max_norm = math.inf if max_norm is None else float(max_norm)

    def attach(self, engine: Any) -> None:
        """Clip after each backward pass of a ``SupervisedTrainer`` that a step of the optimizer follows."""
        check_trainer(engine)
        check_not_attached(engine, self._clip, IterationEvents.BACKWARD_COMPLETED)
        if self.max_norm < math.inf:
            engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._clip)

    def _clip(self, engine: Any) -> None:
        if not _step_follows(engine):
            return
        if engine.amp and engine.scaler is not None:
            engine.scaler.unscale_(engine.optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.max_norm)


def _step_follows(engine: Any) -> bool:
    """Return whether the trainer steps in this iteration, by MONAI's rule for accumulated gradients."""
    iteration, epoch_length = engine.state.iteration, engine.state.epoch_length
    if epoch_length is not None:
        iteration = (iteration - 1) % epoch_length + 1
    return iteration % engine.accumulation_steps == 0 or iteration == epoch_length
