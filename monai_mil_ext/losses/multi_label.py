"""Loss for several labels per bag, some of which may be unknown."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from monai_mil_ext.utils import check_values, without_autocast

from .label_loss import LabelLoss

__all__ = ["MultiLabelLoss"]


class MultiLabelLoss(LabelLoss):
    r"""Binary cross-entropy of the known labels; NaN marks an unknown label.

    .. math::
        L = -\frac{1}{|K|} \sum_{(b, c) \in K} \big( w_c\, y_{bc} \log \sigma(z_{bc})
        + (1 - y_{bc}) \log(1 - \sigma(z_{bc})) \big), \quad K = \{(b, c) : y_{bc} \text{ known}\}

    An unknown label contributes neither loss nor gradient; if no label is known, the loss is 0. Soft labels between 0
    and 1 are allowed. With one class this is the loss of a binary task whose label may be unknown. All computation is
    in float32 (float64 stays float64), also under autocast.

    Args:
        pos_weight: weight :math:`w` of the positive term for each class; 1 by default.
        reduction: ``"mean"`` over the known labels, ``"sum"`` or ``"none"``, which gives 0 for unknown labels.

    Raises:
        ValueError: when a weight is not positive, ``reduction`` is unknown, or an input has the wrong shape or range.

    Example:
        >>> import torch
        >>> labels = torch.tensor([[1.0, torch.nan], [0.0, 1.0]])
        >>> MultiLabelLoss(reduction="none")(torch.zeros(2, 2), labels).tolist()
        [[0.6931..., 0.0], [0.6931..., 0.6931...]]
    """

    def __init__(self, pos_weight: Sequence[float] | None = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        if pos_weight is not None and not all(weight > 0 for weight in pos_weight):
            raise ValueError(f"`pos_weight` must be positive, got {list(pos_weight)}.")
        self.pos_weight = None if pos_weight is None else [float(weight) for weight in pos_weight]
        self._weights: Tensor | None = None  # on the device of the logits

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Compute the loss of logits (B, C) against labels (B, C), or (B,) if C = 1."""
        with without_autocast(logits):
            z = self.float_logits(logits)
            y, known = self.known_labels(label, z)
            invalid = (y < 0) | (y > 1)
            rule = "`label` must be from 0 to 1, or NaN if unknown"
            check_values(~invalid, lambda: f"{rule}, got {y[invalid][0].item()}.")
            loss = binary_cross_entropy_with_logits(z, y, reduction="none", pos_weight=self._class_weights(z))
            return self.reduce(loss, known)

    def _class_weights(self, z: Tensor) -> Tensor | None:
        if self.pos_weight is None:
            return None
        if len(self.pos_weight) != z.shape[1]:
            raise ValueError(f"`pos_weight` must have C = {z.shape[1]} weights, got {len(self.pos_weight)}.")
        if self._weights is None or self._weights.device != z.device or self._weights.dtype != z.dtype:
            self._weights = z.new_tensor(self.pos_weight)  # once, since it waits for a device
        return self._weights
