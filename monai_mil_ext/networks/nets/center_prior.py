"""A network that looks at nothing: it points at the middle of the bag."""

from typing import Optional

import torch
from torch import Tensor

from monai_mil_ext.networks.layers import masked_softmax
from monai_mil_ext.utils import check_positive

from .bag_net import BagNet, BagOutput

__all__ = ["CenterPrior"]


class CenterPrior(BagNet):
    r"""Says of every bag the same, as a baseline that runs wherever a network does; it has no parameters.

    .. math:: \text{logits} = 0, \quad s_j = -\left|j - \frac{S + 1}{2}\right|, \quad
        a = \operatorname{softmax}_j\left(-\frac{1}{2}\left(j - \frac{S + 1}{2}\right)^2\right)

    over the S real instances of a bag in their order, j = 1, ..., S. The scores are free of ties but for mirror pairs,
    which is what localisation should be measured on; the attention, which is zero in float32 some fourteen instances
    from the middle, is for the eye. The order of instances is all that it sees, so it is not permutation invariant.

    Args:
        in_features: size F of an instance, for the check of the input only.
        num_classes: number C of logits.

    Raises:
        ValueError: when a size is not positive or the input of the wrong shape.

    References:
        The centre baseline of arXiv:2604.26807, whose density ties far from the middle in float32.

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
        """See :py:class:`BagNet`."""
        self.check_input(x, mask, self.in_features)
        real = torch.ones_like(x[..., 0], dtype=torch.bool) if mask is None else mask
        place = real.cumsum(1).to(torch.promote_types(x.dtype, torch.float32))
        distance = (place - (real.sum(1, keepdim=True) + 1) / 2).unsqueeze(-1)
        scores = self.score_tap(-distance.abs())
        # a sum of no instance: zero, and yet a function of x for who takes its gradient
        logits = x[:, :0].sum((1, 2)).unsqueeze(1).expand(-1, self.num_classes)
        return BagOutput(logits, masked_softmax(-distance.square() / 2, mask), scores, None)
