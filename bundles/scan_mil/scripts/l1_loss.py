"""L1 penalty inside the loss, as in the published protocol."""

from __future__ import annotations

import math

from torch import Tensor, nn

__all__ = ["L1PenalizedLoss"]


class L1PenalizedLoss(nn.Module):
    r"""Loss with an L1 penalty on all trainable parameters, including biases.

    .. math:: L + \frac{\alpha}{2} \sum_p |\theta_p|

    The gradient of the penalty is the sign (0 at 0), which takes part in momentum and gradient clipping. Weights
    oscillate around zero, whereas :py:class:`monai_mil_ext.handlers.ProximalL1Handler` makes them exactly zero.

    Args:
        loss: loss of logits and labels.
        network: network whose parameters are penalized.
        weight: :math:`\alpha`.

    Raises:
        ValueError: if the weight is negative or not finite.
    """

    def __init__(self, loss: nn.Module, network: nn.Module, weight: float) -> None:
        super().__init__()
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"`weight` must be finite and not negative, got {weight!r}.")
        self.loss = loss
        self.weight = float(weight)
        self.penalized = [
            p for p in network.parameters() if p.requires_grad
        ]  # in a list, so that they are not registered as parameters of the loss

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Compute the loss of ``logits`` with the penalty."""
        loss: Tensor = self.loss(logits, label)
        if not self.weight:
            return loss
        return loss + self.weight / 2 * sum(p.abs().sum() for p in self.penalized)
