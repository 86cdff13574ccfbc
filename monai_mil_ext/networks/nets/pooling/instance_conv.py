"""Linear instance classifier with a convolution over neighboring instances."""

from typing import Optional

from torch import Tensor, nn

from monai_mil_ext.networks.layers import masked_max, masked_softmax
from monai_mil_ext.networks.layers.compact import compact, compact_order, uncompact
from monai_mil_ext.networks.layers.masked import zero_out_padding
from monai_mil_ext.networks.nets.bag_net import BagNet, BagOutput
from monai_mil_ext.utils import check_positive

__all__ = ["InstanceConvMIL"]


class InstanceConvMIL(BagNet):
    r"""Convolution over neighbors and linear classifier of each instance; a bag gets the maximum logit of each class.

    .. math::
        h_{nf} = b_f + \sum_{t=1}^{k} w_{ft} \, x_{n + t - 1 - \lfloor (k-1)/2 \rfloor, f}, \quad s_n = W h_n + c, \quad
        \text{logits}_c = \max_n s_{nc}, \quad a = \operatorname{softmax}_n s_n

    with zeros beyond the bag: a depthwise convolution over k instances and a linear layer, without a nonlinearity
    between them. It is meant to be trained on its scores (B, N, C) with instance labels, as the reference for published
    localization results: a strong reference, but not an upper bound. It depends on the order of instances
    (``permutation_invariant`` is False). A bag without instances has logits 0.

    Args:
        in_features: size F of an instance.
        num_classes: number C of logits.
        kernel_size: number k of instances under the kernel, about the length of a lesion; an even kernel covers one
            more instance after its center than before it.

    Raises:
        ValueError: when a size is not positive or the input has the wrong shape.

    References:
        Slice-supervised model of Harvey, Loevlie, Hughes, "Normal Guidance is what Attention Needs", arXiv:2605.27306;
        kernels 12, 35 and 29 for CT of head, chest and abdomen.

    Example:
        >>> import torch
        >>> output = InstanceConvMIL(in_features=8, num_classes=1, kernel_size=5).forward_bag(torch.rand(1, 4, 8))
        >>> torch.equal(output.logits, output.scores.amax(1))
        True
    """

    permutation_invariant = False

    def __init__(self, in_features: int, num_classes: int, kernel_size: int = 12) -> None:
        super().__init__()
        check_positive(in_features=in_features, num_classes=num_classes, kernel_size=kernel_size)
        self.in_features = in_features
        self.before = (kernel_size - 1) // 2
        self.after = kernel_size - 1 - self.before
        self.mix = nn.Conv1d(in_features, in_features, kernel_size, groups=in_features)
        self.classify = nn.Linear(in_features, num_classes)

    def forward_bag(self, x: Tensor, mask: Optional[Tensor] = None) -> BagOutput:
        """Compute all outputs, see :py:class:`BagNet`."""
        self.check_input(x, mask, self.in_features)
        h = zero_out_padding(x, mask)
        if mask is None:
            scores = self.score_tap(self._score(h))
        else:  # instances are neighbors even if there is padding between them
            order = compact_order(mask)
            scores = self.score_tap(uncompact(self._score(compact(h, order)), order))
        # each class as a bag of its own with one feature
        class_bags = scores.transpose(1, 2).flatten(0, 1).unsqueeze(-1)
        classes = scores.shape[2]
        logits, _ = masked_max(class_bags, None if mask is None else mask.repeat_interleave(classes, 0))
        return BagOutput(logits.view(scores.shape[0], classes), masked_softmax(scores, mask), scores, None)

    def _score(self, h: Tensor) -> Tensor:
        """Compute logits (B, N, C) of instances (B, N, F) with padding, if any, at the end."""
        padded = nn.functional.pad(h.transpose(1, 2), [self.before, self.after + 1])  # + 1 for the case N = 0
        scores: Tensor = self.classify(self.mix(padded).transpose(1, 2))
        return scores[:, : h.shape[1]]
