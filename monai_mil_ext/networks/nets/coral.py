"""Ordinal regression head (CORAL) for any network with one output."""

from typing import Optional

import torch
from torch import Tensor, nn

from monai_mil_ext.utils import check_positive

from .bag_net import BagNet, BagOutput

__all__ = ["CORAL"]


class CORAL(BagNet):
    r"""CORAL, proposed in `Rank consistent ordinal regression for neural networks <https://arxiv.org/abs/1901.07884>`_.

    Given a network with one output g(X) for a bag X, CORAL compares it with C - 1 thresholds, one for each question "is
    the class above k?":

    .. math:: z_{bk} = g(x_b) + \beta_k, \quad k = 0, \dots, C - 2

    The questions share all weights and differ only in their biases. If the biases decrease, so do the probabilities
    :math:`\sigma(z_{bk})` for every bag, and the biases that minimize :py:class:`OrdinalLoss` do decrease (Theorem 1 of
    the paper). They are initialized to the optimum for C equally frequent classes and g = 0, so that g is not pushed up
    or down before it depends on the labels, which would make attention avoid the relevant instances. The last bias of
    the network is redundant with :math:`\beta`, which does no harm. Class attributes such as
    ``permutation_invariant`` are those of the network.

    Args:
        net: network with one output.
        num_classes: number C of classes; there are C - 1 logits.

    Raises:
        ValueError: when ``num_classes`` is less than 2 or, in a forward pass, the network has more than one output.

    References:
        Cao, Mirjalili, Raschka, "Rank consistent ordinal regression for neural networks with application to age
        estimation", arXiv:1901.07884.

    Example:
        >>> from monai_mil_ext.networks.nets import ABMIL
        >>> logits = CORAL(ABMIL(in_features=8, num_classes=1), num_classes=4)(torch.rand(2, 5, 8))
        >>> logits.diff(dim=1).tolist()  # the same for every bag
        [[-1.098..., -1.098...], [-1.098..., -1.098...]]
    """

    def __init__(self, net: BagNet, num_classes: int) -> None:
        super().__init__()
        check_positive(num_classes=num_classes)
        if num_classes < 2:
            raise ValueError(f"`num_classes` must be at least 2, got {num_classes}.")
        self.net = net
        self.biases = nn.Parameter((1 - torch.arange(1, num_classes) / num_classes).logit())
        self.score_tap = net.score_tap  # the same tap under two names
        self.take_properties(net)

    def forward_bag(self, x: Tensor, mask: Optional[Tensor] = None) -> BagOutput:
        """Compute all outputs, see :py:class:`BagNet`; the logits are (B, C - 1)."""
        output: BagOutput = self.net.forward_bag(x, mask)
        return self.change_output(output)

    def change_output(self, output: BagOutput) -> BagOutput:
        """Compare an output of the network with the thresholds."""
        if output.logits.shape[1] != 1:
            raise ValueError(f"`net` must have one output, got {output.logits.shape[1]}.")
        return BagOutput(output.logits + self.biases, output.attention, output.scores, output.embedding)
