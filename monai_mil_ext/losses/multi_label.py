"""Several labels a bag, some of them unknown."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from .label_loss import LabelLoss

__all__ = ["MultiLabelLoss"]


class MultiLabelLoss(LabelLoss):
    r"""Binary cross-entropy of each label that is known; NaN marks one that is not.

    .. math::
        L = -\frac{1}{|K|} \sum_{(b, c) \in K} \big( w_c\, y_{bc} \log \sigma(z_{bc})
        + (1 - y_{bc}) \log(1 - \sigma(z_{bc})) \big), \quad K = \{(b, c) : y_{bc} \text{ known}\}

    An unknown label has neither loss nor gradient; where none is known the loss is 0. Labels may lie between 0 and 1.
    With one class it is the loss of a binary task, whose label may be unknown. Everything is computed in float32
    (float64 stays float64), under autocast too.

    Args:
        pos_weight: :math:`w`, one weight a class for what is positive; 1 by default.
        reduction: ``"mean"`` over the known labels, ``"sum"`` or ``"none"``, which is 0 at unknown ones.

    Raises:
        ValueError: when a weight is not positive, ``reduction`` none of these, or an input has the wrong shape or
            range.

    Example:
        >>> labels = torch.tensor([[1.0, torch.nan], [0.0, 1.0]])
        >>> MultiLabelLoss(reduction="none")(torch.zeros(2, 2), labels).tolist()
        [[0.6931..., 0.0], [0.6931..., 0.6931...]]
    """

    def __init__(self, pos_weight: Sequence[float] | None = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        if pos_weight is not None and not all(weight > 0 for weight in pos_weight):
            raise ValueError(f"`pos_weight` must be positive, got {list(pos_weight)}.")
        self.pos_weight = None if pos_weight is None else [float(weight) for weight in pos_weight]

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Loss of logits (B, C) against labels (B, C), or (B,) where C = 1."""
        with torch.autocast(logits.device.type, enabled=False):
            z = self.real_logits(logits)
            y, known = self.known_labels(label, z)
            bad = (y < 0) | (y > 1)
            if bad.any():
                raise ValueError(f"`label` must be from 0 to 1, or NaN where unknown, got {y[bad][0].item()}.")
            each = binary_cross_entropy_with_logits(z, y, reduction="none", pos_weight=self._weight(z))
            return self.reduce(each, known)

    def _weight(self, z: Tensor) -> Tensor | None:
        if self.pos_weight is None:
            return None
        if len(self.pos_weight) != z.shape[1]:
            raise ValueError(f"`pos_weight` must have C = {z.shape[1]} weights, got {len(self.pos_weight)}.")
        return z.new_tensor(self.pos_weight)
