"""Base classes of losses on attention: padding, precision, the reduction over bags, and targets without gradient."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor
from torch.nn.modules.loss import _Loss

from monai_mil_ext.utils import check_choice, check_mask, check_positions, check_positive_number, without_autocast

__all__ = ["AttentionLoss", "GuidanceLoss"]


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


class GuidanceLoss(AttentionLoss):
    r"""Base class of guidance: the divergence of attention from a target that is computed from it, without gradient.

    .. math:: L = \sum_j D(r_j, a_j), \quad r = r(a) \text{ held fixed}

    A subclass computes the target, a distribution over the valid instances, in :py:meth:`target`. Target and attention
    are clamped to at least :math:`\epsilon` before :math:`D`. Sums are over valid instances; heads are averaged, then
    bags. All computation is in float32 (float64 stays float64), also under autocast.

    Args:
        divergence: ``"forward_kl"`` :math:`r\log(r/a)`, ``"reverse_kl"`` :math:`a\log(a/r)` or ``"squared_error"``
            :math:`(r-a)^2`.
        eps: lower bound of the sum of attention, of the target and of the attention.
        renormalize: whether to divide the attention by its sum first, for rows that sum to less than one, such as
            those of a class token.
        reduction: ``"mean"`` over non-empty bags, ``"sum"`` or ``"none"``; an empty bag gives 0.

    Raises:
        ValueError: when an option is unknown, a lower bound is not positive, an input has the wrong shape, or a
            position of a valid instance is not finite.
    """

    def __init__(
        self, divergence: str = "forward_kl", eps: float = 1e-6, renormalize: bool = False, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction)
        check_choice("divergence", divergence, DIVERGENCES)
        check_positive_number(eps=eps)
        self.divergence = divergence
        self.eps = eps
        self.renormalize = renormalize

    def forward(self, attention: Tensor, mask: Tensor | None = None, positions: Tensor | None = None) -> Tensor:
        """Compute the loss of attention (B, N, H) at ``positions`` (B, N), by default 1, 2, ..., N."""
        with without_autocast(attention):
            a, mask = self.real_attention(attention, mask)
            target = self.target(a.detach(), mask, self.real_positions(positions, a, mask))
            if self.renormalize:
                a = a / a.sum(dim=1, keepdim=True).clamp(min=self.eps)
            eps = max(self.eps, torch.finfo(attention.dtype).tiny)  # the gradient, up to 1 / eps, is of that precision
            # padding adds nothing: target and attention are both eps there, where every divergence is 0
            divergence = DIVERGENCES[self.divergence](target.clamp(min=eps), a.clamp(min=eps))
            return self.reduce(divergence.sum(dim=1), mask)

    def real_positions(self, positions: Tensor | None, a: Tensor, mask: Tensor) -> Tensor | None:
        """Return positions (B, N) as (B, N, 1) in the dtype of ``a``, zero at padding."""
        if positions is None:
            return None
        check_positions(positions, a.shape[:2], mask.squeeze(-1))
        return positions.to(a).unsqueeze(-1).masked_fill(~mask, 0.0)

    @abstractmethod
    def target(self, a: Tensor, mask: Tensor, positions: Tensor | None) -> Tensor:
        """Return the target (B, N, H) of attention with zeros at padding; mask and positions are (B, N, 1)."""


def _forward_kl(r: Tensor, a: Tensor) -> Tensor:
    return r * (r.log() - a.log())


def _reverse_kl(r: Tensor, a: Tensor) -> Tensor:
    return a * (a.log() - r.log())


def _squared_error(r: Tensor, a: Tensor) -> Tensor:
    return (r - a).square()


DIVERGENCES = {"forward_kl": _forward_kl, "reverse_kl": _reverse_kl, "squared_error": _squared_error}
