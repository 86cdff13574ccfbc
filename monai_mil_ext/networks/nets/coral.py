"""A head for classes that have an order, around any network of one output."""

from typing import Optional

import torch
from torch import Tensor, nn

from monai_mil_ext.utils import check_positive

from .bag_net import BagNet, BagOutput

__all__ = ["CORAL"]


class CORAL(BagNet):
    r"""Asks of one grade of a bag whether it is above each of C - 1 thresholds: ordinal regression with shared weights.

    .. math:: z_{bk} = g(x_b) + \beta_k, \quad k = 0, \dots, C - 2

    The network gives g, one output; the biases are all that tells the questions apart. Where they fall, the answers
    :math:`\sigma(z_{bk})` to "is the class above k?" fall with k for every bag, and the biases that minimise
    :py:class:`OrdinalLoss` do fall (Theorem 1 of the paper). They start where they are best for C equally frequent
    classes and g = 0: from there g is pushed neither up nor down before it has seen a label, which would have attention
    avoid what counts. The network's own last bias moves all questions at once, as the :math:`\beta` could; it does no
    harm. The promises that it keeps are those of its network.

    Args:
        net: a network of one output.
        num_classes: number C of classes; there are C - 1 logits.

    Raises:
        ValueError: when ``num_classes`` is below 2 or, in a forward pass, the network has more than one output.

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
        self.score_tap = net.score_tap  # one tap under two names
        self.permutation_invariant = net.permutation_invariant
        self.attention_is_distribution = net.attention_is_distribution
        self.exports_dynamic_n = net.exports_dynamic_n
        self.gives_scores = net.gives_scores
        self.logits_see_all_weights = net.logits_see_all_weights

    def forward_bag(self, x: Tensor, mask: Optional[Tensor] = None) -> BagOutput:
        """See :py:class:`BagNet`; the logits are (B, C - 1)."""
        out = self.net.forward_bag(x, mask)
        if out.logits.shape[1] != 1:
            raise ValueError(f"`net` must have one output, got {out.logits.shape[1]}.")
        return BagOutput(out.logits + self.biases, out.attention, out.scores, out.embedding)
