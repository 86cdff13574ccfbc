"""A penalty on attention that settles on few instances."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_mil_ext.utils import check_positive

from .attention_loss import AttentionLoss

__all__ = ["AttentionEntropyLoss"]


class AttentionEntropyLoss(AttentionLoss):
    r"""Negative entropy of attention: 0 on one instance, :math:`-\log N` when all of N get the same.

    .. math:: L = \sum_n a_n \log a_n

    Heads are averaged, then bags. Everything is computed in float32 (float64 stays float64), under autocast too.

    Args:
        top_k: the entropy of the k largest weights of a row only, which are divided by their sum first.
        normalize: whether to divide by :math:`\log N`, N instances of the bag (or ``top_k``, if fewer), which makes the
            loss that of a bag of any size: from -1 to 0. A bag of one instance gives 0.
        reduction: ``"mean"`` over the bags that have an instance, ``"sum"`` or ``"none"``; an empty bag gives 0.

    Raises:
        ValueError: when ``top_k`` is not positive, ``reduction`` none of these, or an input has the wrong shape.

    References:
        Zhang et al., "AEM: Attention Entropy Maximization for Multiple Instance Learning based Whole Slide Image
        Classification", arXiv:2406.15303.

    Example:
        >>> attention = torch.tensor([[[0.7], [0.1], [0.1], [0.1]]])
        >>> [round(loss(attention).item(), 4) for loss in (AttentionEntropyLoss(), AttentionEntropyLoss(top_k=2))]
        [-0.9404, -0.3768]
    """

    def __init__(self, top_k: int | None = None, normalize: bool = False, reduction: str = "mean") -> None:
        super().__init__(reduction)
        check_positive(top_k=1 if top_k is None else top_k)
        self.top_k = top_k
        self.normalize = normalize

    def forward(self, attention: Tensor, mask: Tensor | None = None) -> Tensor:
        """Loss of attention (B, N, H); ``mask`` (B, N) is True for a real instance."""
        with torch.autocast(attention.device.type, enabled=False):
            a, real = self.real_attention(attention, mask)
            tiny = torch.finfo(a.dtype).tiny
            count = real.sum(dim=1)
            if self.top_k is not None:
                a = a.topk(min(self.top_k, a.shape[1]), dim=1).values
                a = a / a.sum(dim=1, keepdim=True).clamp(min=tiny)
                count = count.clamp(max=self.top_k)
            # what is 0 has no logarithm, yet its share of the entropy is 0, and so is that of its gradient
            negative_entropy = (a * a.clamp(min=tiny).log()).sum(dim=1)
            if self.normalize:
                negative_entropy = negative_entropy / count.clamp(min=2).to(a.dtype).log()
            return self.reduce(negative_entropy, real)
