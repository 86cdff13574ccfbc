"""Measured targets of a bag, some of them unknown."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import huber_loss, mse_loss

from .label_loss import LabelLoss

__all__ = ["RegressionLoss"]


class RegressionLoss(LabelLoss):
    r"""Squared error of each target that is known, or Huber's; NaN marks one that is not.

    .. math::
        L = \frac{1}{|K|} \sum_{(b, c) \in K} \rho(z_{bc} - y_{bc}), \quad
        \rho(r) = r^2 \quad \text{or} \quad
        \rho_\delta(r) = \begin{cases} r^2 / 2 & |r| \le \delta \\ \delta (|r| - \delta / 2) & |r| > \delta \end{cases}

    An unknown target has neither loss nor gradient; where none is known the loss is 0. A network of
    ``num_classes = C`` outputs gives :math:`z`. One target may come as (B,) or (B, 1): ``MSELoss`` would broadcast the
    first against (B, 1) to (B, B). Computed in float32 (float64 stays float64), under autocast too.

    Args:
        delta: :math:`\delta`, the error from which on Huber's loss grows linearly; ``None`` for the squared error.
        reduction: ``"mean"`` over the known targets, ``"sum"`` or ``"none"``, which is 0 at unknown ones.

    Raises:
        ValueError: when ``delta`` is not positive, ``reduction`` none of these, or an input has the wrong shape or
            range.

    References:
        Huber, "Robust Estimation of a Location Parameter", The Annals of Mathematical Statistics 35(1), 1964.

    Example:
        >>> targets = torch.tensor([[1.0, torch.nan], [0.0, 4.0]])
        >>> RegressionLoss(reduction="none")(torch.zeros(2, 2), targets).tolist()
        [[1.0, 0.0], [0.0, 16.0]]
        >>> RegressionLoss(delta=1.0, reduction="none")(torch.zeros(2, 2), targets).tolist()
        [[0.5, 0.0], [0.0, 3.5]]
    """

    def __init__(self, delta: float | None = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        if delta is not None and not delta > 0:
            raise ValueError(f"`delta` must be positive, got {delta!r}.")
        self.delta = delta

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Loss of outputs (B, C) against targets (B, C), or (B,) where C = 1."""
        with torch.autocast(logits.device.type, enabled=False):
            z = self.real_logits(logits)
            y, known = self.known_labels(label, z)
            if y.isinf().any():
                raise ValueError(f"`label` must be finite, or NaN where unknown, got {y[y.isinf()][0].item()}.")
            z = z.masked_fill(~known, 0.0)  # or an infinite output would have a gradient of NaN
            if self.delta is None:
                return self.reduce(mse_loss(z, y, reduction="none"), known)
            return self.reduce(huber_loss(z, y, reduction="none", delta=self.delta), known)
