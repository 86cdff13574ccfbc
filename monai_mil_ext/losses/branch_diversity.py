"""A penalty on branches of attention that look at the same instances."""

from __future__ import annotations

import torch
from torch import Tensor

from .attention_loss import AttentionLoss

__all__ = ["BranchDiversityLoss"]


class BranchDiversityLoss(AttentionLoss):
    r"""Mean cosine between the attention of the pairs of K branches: 1 where all agree, 0 where none overlap.

    .. math:: L = \frac{2}{K (K - 1)} \sum_{i < j} \frac{a_i^\top a_j}{\lVert a_i \rVert \lVert a_j \rVert}

    The attention of ACMIL is that after masking: read ``mask_top`` in an :py:class:`AttentionPriorHandler`. One branch
    has no pair and gives 0. It is computed in float32 (float64 stays float64), under autocast too.

    Args:
        reduction: ``"mean"`` over the bags that have an instance, ``"sum"`` or ``"none"``; an empty bag gives 0.

    Raises:
        ValueError: when ``reduction`` is none of these or an input has the wrong shape.

    References:
        Zhang et al., "Attention-Challenging Multiple Instance Learning for Whole Slide Image Classification",
        arXiv:2311.07125.

    Example:
        >>> attention = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]])
        >>> BranchDiversityLoss(reduction="none")(attention).round(decimals=6).tolist()
        [0.0, 1.0]
    """

    def forward(self, attention: Tensor, mask: Tensor | None = None) -> Tensor:
        """Loss of attention (B, N, K)."""
        with torch.autocast(attention.device.type, enabled=False):
            a, real = self.real_attention(attention, mask)
            units = torch.nn.functional.normalize(a, dim=1)
            branches = a.shape[2]
            cosines = units.transpose(1, 2) @ units
            pairs = torch.ones_like(cosines[0]).triu(diagonal=1)
            mean = (cosines * pairs).sum(dim=(1, 2)) * (2 / max(branches * (branches - 1), 1))
            return self.reduce(mean.unsqueeze(1), real)
