"""Base class of losses on attention: padding, precision and the reduction over bags."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.modules.loss import _Loss

from monai_mil_ext.utils import check_choice, check_mask

__all__ = ["AttentionLoss"]


class AttentionLoss(_Loss):
    """Base class of losses on attention (B, N, H), which averages the heads of a bag and reduces over bags.

    A subclass computes one value per bag and head between :py:meth:`real_attention` and :py:meth:`reduce`.

    Args:
        reduction: ``"mean"`` over non-empty bags, ``"sum"`` or ``"none"``; an empty bag gives 0.

    Raises:
        ValueError: when ``reduction`` is unknown.
    """

    def __init__(self, reduction: str = "mean") -> None:
        check_choice("reduction", reduction, ("mean", "sum", "none"))
        super().__init__(reduction=reduction)

    def real_attention(self, attention: Tensor, mask: Tensor | None, name: str = "attention") -> tuple[Tensor, Tensor]:
        """Return attention in float32 (float64 stays) with zeros at padding, and the mask as (B, N, 1)."""
        if attention.ndim != 3 or not attention.is_floating_point() or not attention.shape[2]:
            got = f"{attention.dtype} {tuple(attention.shape)}"
            raise ValueError(f"`{name}` must be floating point of shape (B, N, H) with H >= 1, got {got}.")
        a = attention.to(torch.promote_types(attention.dtype, torch.float32))
        if mask is None:
            return a, torch.ones_like(a[..., :1], dtype=torch.bool)
        check_mask(mask, attention)
        mask = mask.unsqueeze(-1)
        return a.masked_fill(~mask, 0.0), mask

    def reduce(self, loss: Tensor, mask: Tensor) -> Tensor:
        """Reduce a loss (B, H) to a scalar, or to (B,) if not reduced; bags are empty by ``mask`` (B, N, 1)."""
        not_empty = mask.any(dim=1).squeeze(-1)
        per_bag = loss.mean(dim=-1).masked_fill(~not_empty, 0.0)
        if self.reduction == "none":
            return per_bag
        total = per_bag.sum()
        return total if self.reduction == "sum" else total / not_empty.sum().clamp(min=1)
