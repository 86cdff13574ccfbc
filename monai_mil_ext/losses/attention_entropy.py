"""Loss against attention that concentrates on few instances."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_mil_ext.utils import check_positive, without_autocast

from .attention_loss import AttentionLoss

__all__ = ["AttentionEntropyLoss"]


class AttentionEntropyLoss(AttentionLoss):
    r"""Negative entropy of attention: 0 for a single instance, :math:`-\log N` for uniform attention.

    .. math:: L = \sum_n a_n \log a_n

    Heads are averaged, then bags. All computation is in float32 (float64 stays float64), also under autocast.

    Args:
        top_k: use only the k largest weights of each row, divided by their sum; ``None`` uses all.
        normalize: whether to divide by :math:`\log N` for a bag of N instances (or by that of ``top_k``, if smaller),
            so that the loss is between -1 and 0 for any bag size. A bag of one instance gives 0.
        reduction: ``"mean"`` over non-empty bags, ``"sum"`` or ``"none"``; an empty bag gives 0.

    Raises:
        ValueError: when ``top_k`` is not positive, ``reduction`` is unknown, or an input has the wrong shape.

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
        """Compute the loss of attention (B, N, H); ``mask`` (B, N) is True for a valid instance."""
        with without_autocast(attention):
            a, mask = self.real_attention(attention, mask)
            tiny = torch.finfo(a.dtype).tiny
            count = mask.sum(dim=1)
            if self.top_k is not None:
                a = a.topk(min(self.top_k, a.shape[1]), dim=1).values
                a = a / a.sum(dim=1, keepdim=True).clamp(min=tiny)
                count = count.clamp(max=self.top_k)
            # the clamp makes the term of a zero weight, and its gradient, zero instead of NaN
            negative_entropy = (a * a.clamp(min=tiny).log()).sum(dim=1)
            if self.normalize:
                negative_entropy = negative_entropy / count.clamp(min=2).to(a.dtype).log()
            return self.reduce(negative_entropy, mask)
