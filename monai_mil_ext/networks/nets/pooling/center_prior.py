"""Baseline without weights that attends to the middle of each bag."""

from typing import Optional

import torch
from torch import Tensor

from monai_mil_ext.networks.layers import masked_softmax
from monai_mil_ext.networks.nets.bag_net import BagNet, BagOutput
from monai_mil_ext.utils import check_positive

__all__ = ["CenterPrior"]


class CenterPrior(BagNet):
    r"""Baseline that attends to the middle of a bag, whatever its instances; it has no parameters.

    .. math:: \text{logits} = 0, \quad s_j = -\left|j - \frac{S + 1}{2}\right|, \quad
        a = \operatorname{softmax}_j\left(-\frac{1}{2}\left(j - \frac{S + 1}{2}\right)^2\right)

    over the S valid instances of a bag in their order, j = 1, ..., S. Measure localization on the scores, which have no
    ties except for mirror pairs; the attention underflows to zero in float32 some fourteen instances from the middle
    and is for display. The output depends only on the order of instances (``permutation_invariant`` is False).

    Args:
        in_features: size F of an instance, used only to check the input.
        num_classes: number C of logits.

    Raises:
        ValueError: when a size is not positive or the input has the wrong shape.

    References:
        Center baseline of arXiv:2604.26807, whose density has ties far from the middle in float32.

    Example:
        >>> CenterPrior(in_features=8, num_classes=2).forward_bag(torch.rand(1, 4, 8)).scores.flatten().tolist()
        [-1.5, -0.5, -0.5, -1.5]
    """

    permutation_invariant = False

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        check_positive(in_features=in_features, num_classes=num_classes)
        self.in_features = in_features
        self.num_classes = num_classes

    def forward_bag(self, x: Tensor, mask: Optional[Tensor] = None) -> BagOutput:
        """Compute all outputs, see :py:class:`BagNet`."""
        self.check_input(x, mask, self.in_features)
        full_mask = torch.ones_like(x[..., 0], dtype=torch.bool) if mask is None else mask
        position = full_mask.cumsum(1).to(torch.promote_types(x.dtype, torch.float32))
        distance = (position - (full_mask.sum(1, keepdim=True) + 1) / 2).unsqueeze(-1)
        scores = self.score_tap(-distance.abs())
        # an empty sum: zero, but still a function of x, so that a gradient can be taken
        logits = x[:, :0].sum((1, 2)).unsqueeze(1).expand(-1, self.num_classes)
        return BagOutput(logits, masked_softmax(-distance.square() / 2, mask), scores, None)
