"""Clipping the norm of the gradient in a MONAI trainer."""

from __future__ import annotations

from typing import Any

from monai.engines import IterationEvents
from torch import nn

__all__ = ["GradientClip"]


class GradientClip:
    """Scales the gradient of all parameters together to a norm of at most ``max_norm``, before each step.

    It sees gradients as backward leaves them, so it must not be combined with a gradient scaler.

    Args:
        network: whose gradients are clipped.
        max_norm: of all of them as one vector.

    Raises:
        ValueError: when a run starts with automatic mixed precision.
    """

    def __init__(self, network: nn.Module, max_norm: float) -> None:
        self.network = network
        self.max_norm = max_norm

    def attach(self, engine: Any) -> None:
        """Clip after each backward pass of a ``SupervisedTrainer``."""
        if engine.amp:
            raise ValueError("`amp` must be False where gradients are clipped, got True.")
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._clip)

    def _clip(self, _engine: Any) -> None:
        nn.utils.clip_grad_norm_(self.network.parameters(), self.max_norm)
