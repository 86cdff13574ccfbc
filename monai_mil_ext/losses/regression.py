"""Loss for continuous targets of a bag, some of which may be unknown."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import huber_loss, mse_loss

from monai_mil_ext.utils import check_positive_number, check_values, without_autocast

from .label_loss import LabelLoss

__all__ = ["RegressionLoss"]


class RegressionLoss(LabelLoss):
    r"""Squared error or Huber loss of the known targets; NaN marks an unknown target.

    .. math::
        L = \frac{1}{|K|} \sum_{(b, c) \in K} \rho(z_{bc} - y_{bc}), \quad
        \rho(r) = r^2 \quad \text{or} \quad
        \rho_\delta(r) = \begin{cases} r^2 / 2 & |r| \le \delta \\ \delta (|r| - \delta / 2) & |r| > \delta \end{cases}

    An unknown target contributes neither loss nor gradient; if no target is known, the loss is 0. The outputs z are
    those of a network with ``num_classes = C``. A single target may have the shape (B,) or (B, 1), where ``MSELoss``
    would broadcast (B,) against (B, 1) to (B, B). All computation is in float32 (float64 stays float64), also under
    autocast.

    Args:
        delta: absolute error :math:`\delta` above which the Huber loss is linear; ``None`` means the squared error.
        reduction: ``"mean"`` over the known targets, ``"sum"`` or ``"none"``, which gives 0 for unknown targets.

    Raises:
        ValueError: when ``delta`` is not positive and finite, ``reduction`` is unknown, or an input has the wrong shape
            or range.

    References:
        Huber, "Robust Estimation of a Location Parameter", The Annals of Mathematical Statistics 35(1), 1964.

    Example:
        >>> import torch
        >>> targets = torch.tensor([[1.0, torch.nan], [0.0, 4.0]])
        >>> RegressionLoss(reduction="none")(torch.zeros(2, 2), targets).tolist()
        [[1.0, 0.0], [0.0, 16.0]]
        >>> RegressionLoss(delta=1.0, reduction="none")(torch.zeros(2, 2), targets).tolist()
        [[0.5, 0.0], [0.0, 3.5]]
    """

    def __init__(self, delta: float | None = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        check_positive_number(delta=1.0 if delta is None else delta)
        self.delta = delta

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Compute the loss of outputs (B, C) against targets (B, C), or (B,) if C = 1."""
        with without_autocast(logits):
            z = self.float_logits(logits)
            y, known = self.known_labels(label, z)
            check_values(
                ~y.isinf(), lambda: f"`label` must be finite, or NaN if unknown, got {y[y.isinf()][0].item()}."
            )
            z = z.masked_fill(~known, 0.0)  # otherwise the gradient of an infinite output would be NaN
            if self.delta is None:
                return self.reduce(mse_loss(z, y, reduction="none"), known)
            return self.reduce(huber_loss(z, y, reduction="none", delta=self.delta), known)
