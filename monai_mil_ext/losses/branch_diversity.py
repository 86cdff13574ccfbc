"""Loss against attention branches that attend to the same instances."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_mil_ext.networks.layers import attention_pool
from monai_mil_ext.utils import without_autocast

from .attention_loss import AttentionLoss

__all__ = ["BranchDiversityLoss"]


class BranchDiversityLoss(AttentionLoss):
    r"""Mean cosine similarity between the attention of K branches: 1 if all agree, 0 if none overlap.

    .. math:: L = \frac{2}{K (K - 1)} \sum_{i < j} \frac{a_i^\top a_j}{\lVert a_i \rVert \lVert a_j \rVert}

    For ACMIL the loss takes attention after masking: read ``mask_top`` in an :py:class:`AttentionPriorHandler`. A
    single branch has no pair and gives 0. All computation is in float32 (float64 stays float64), also under autocast.

    Args:
        reduction: ``"mean"`` over non-empty bags, ``"sum"`` or ``"none"``; an empty bag gives 0.

    Raises:
        ValueError: when ``reduction`` is unknown or an input has the wrong shape.

    References:
        Zhang et al., "Attention-Challenging Multiple Instance Learning for Whole Slide Image Classification",
        arXiv:2311.07125.

    Example:
        >>> attention = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]])
        >>> BranchDiversityLoss(reduction="none")(attention).round(decimals=6).tolist()
        [0.0, 1.0]
    """

    def forward(self, attention: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute the loss of attention (B, N, K); ``mask`` (B, N) is True for a valid instance."""
        with without_autocast(attention):
            a, mask = self.real_attention(attention, mask)
            # products by `attention_pool`, which is exact for millions of instances, as a matrix product is not
            products = attention_pool(a, a)
            norms = products.diagonal(dim1=1, dim2=2).clamp(min=torch.finfo(a.dtype).tiny).sqrt()
            cosines = products / (norms.unsqueeze(1) * norms.unsqueeze(2))
            branches = a.shape[2]
            total = cosines.triu(diagonal=1).sum(dim=(1, 2))
            return self.reduce(total.unsqueeze(1) * (2 / max(branches * (branches - 1), 1)), mask)
