"""Loss and probabilities for ordered classes, such as grades."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from monai_mil_ext.utils import logits_to_probabilities, without_autocast

from .label_loss import LabelLoss

__all__ = ["OrdinalLoss", "ordinal_probabilities"]


class OrdinalLoss(LabelLoss):
    r"""Sum of the C - 1 binary cross-entropies of "is the class above k?", for C ordered classes.

    .. math::
        L = -\frac1B \sum_b \sum_{k=0}^{C-2} \big( [y_b > k] \log \sigma(z_{bk})
        + [y_b \le k] \log(1 - \sigma(z_{bk})) \big)

    The logits come from any network with ``num_classes = C - 1``, or from :py:class:`CORAL` around a network with one
    output, whose logits decrease by the same steps for every bag; :py:func:`ordinal_probabilities` converts both to
    class probabilities. All computation is in float32 (float64 stays float64), also under autocast.

    Args:
        reduction: ``"mean"`` over the bags, ``"sum"`` or ``"none"`` for one value per bag.

    Raises:
        ValueError: when ``reduction`` is unknown or an input has the wrong shape or range.

    References:
        Cao, Mirjalili, Raschka, "Rank consistent ordinal regression for neural networks with application to age
        estimation", arXiv:1901.07884.

    Example:
        >>> loss, logits_of_class_1 = OrdinalLoss(reduction="none"), torch.tensor([[5.0, -5.0]]).expand(3, 2)
        >>> loss(logits_of_class_1, torch.tensor([0, 1, 2])).round(decimals=2).tolist()
        [5.01..., 0.009..., 5.01...]
    """

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Compute the loss of logits (B, C - 1) against classes (B,) from 0 to C - 1."""
        with without_autocast(logits):
            z = self.float_logits(logits)
            y = self.class_indices("label", label, z, z.shape[1])
            above = (y > torch.arange(z.shape[1], device=z.device)).to(z.dtype)
            return self.reduce(binary_cross_entropy_with_logits(z, above, reduction="none").sum(dim=1))


def ordinal_probabilities(logits: Tensor) -> Tensor:
    r"""Convert the logits (B, C - 1) of :py:class:`OrdinalLoss` to class probabilities (B, C).

    .. math:: p_k = q_{k-1} - q_k, \quad q_k = \sigma(\min_{j \le k} z_j), \quad q_{-1} = 1, \quad q_{C-1} = 0

    The running minimum keeps the probabilities non-negative for any logits: "above k + 1" is never more likely than
    "above k". Decreasing logits are not changed by it.

    Raises:
        ValueError: when the logits have the wrong shape.

    Example:
        >>> ordinal_probabilities(torch.tensor([[0.0, 0.0], [0.0, 9.0]])).tolist()
        [[0.5, 0.0, 0.5], [0.5, 0.0, 0.5]]
    """
    with without_autocast(logits):
        return logits_to_probabilities(LabelLoss().float_logits(logits), "ordinal")
