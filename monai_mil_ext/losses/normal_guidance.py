"""Loss that draws attention towards a normal distribution over the ordered instances of a bag."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_mil_ext.networks.layers import masked_softmax
from monai_mil_ext.utils import check_choice, check_positions, check_positive_number, without_autocast

from .attention_loss import AttentionLoss

__all__ = ["NormalGuidanceLoss"]


class NormalGuidanceLoss(AttentionLoss):
    r"""Divergence of the attention of each bag from the discrete normal with the same mean and variance.

    Normal Guidance, proposed in `Normal Guidance is what Attention Needs <https://arxiv.org/abs/2605.27306>`_:

    .. math::
        \mu = \frac{\sum_j p_j a_j}{A}, \quad
        \sigma^2 = \max\Big(\frac{\sum_j (p_j - \mu)^2 a_j}{A}, \epsilon\Big), \quad
        r = \operatorname{softmax}_j\Big(-\frac{(p_j - \mu)^2}{2\sigma^2}\Big), \quad
        L = \sum_j D(r_j, a_j)

    with :math:`A = \max(\sum_j a_j, \epsilon)` and positions :math:`p`. The target r has no gradient; r and a are
    clamped to at least :math:`\epsilon` before :math:`D`. Sums are over valid instances; heads are averaged, then bags.
    All computation is in float32 (float64 stays float64), also under autocast. Instances must be in anatomical order.
    Attention on a single instance is a global minimum, unless ``min_sd`` is set; on a finite grid the loss also draws
    spread-out attention to the middle of the bag.

    Args:
        divergence: ``"forward_kl"`` :math:`r\log(r/a)`, ``"reverse_kl"`` :math:`a\log(a/r)` or ``"squared_error"``
            :math:`(r-a)^2`.
        eps: lower bound of the sum, the variance, the target and the attention.
        min_sd: lower bound of :math:`\sigma`, in units of the positions.
        renormalize: whether to divide the attention by :math:`A` first, for rows that sum to less than one, such as
            those of a class token.
        reduction: ``"mean"`` over non-empty bags, ``"sum"`` or ``"none"``; an empty bag gives 0.

    Raises:
        ValueError: when an option is unknown, a lower bound is not positive, an input has the wrong shape, or a
            position of a valid instance is not finite.

    References:
        Harvey, Loevlie, Hughes, "Normal Guidance is what Attention Needs", arXiv:2605.27306.

    Example:
        >>> loss = NormalGuidanceLoss()
        >>> bell = torch.softmax(-(torch.arange(48.0) - 24) ** 2 / 50, dim=0).view(1, 48, 1)
        >>> two_bells = (bell.roll(-12, dims=1) + bell.roll(12, dims=1)) / 2
        >>> [round(abs(loss(attention).item()), 3) for attention in (bell, two_bells)]
        [0.0, 0.317]
    """

    def __init__(
        self,
        divergence: str = "forward_kl",
        eps: float = 1e-6,
        min_sd: float | None = None,
        renormalize: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        check_choice("divergence", divergence, DIVERGENCES)
        check_positive_number(eps=eps, min_sd=1.0 if min_sd is None else min_sd)
        self.divergence = divergence
        self.eps = eps
        self.min_sd = min_sd
        self.renormalize = renormalize

    def forward(self, attention: Tensor, mask: Tensor | None = None, positions: Tensor | None = None) -> Tensor:
        """Compute the loss of attention (B, N, H) at ``positions`` (B, N), by default 1, 2, ..., N."""
        with without_autocast(attention):
            a, mask = self.real_attention(attention, mask)
            target = self._target(a.detach(), mask, positions)
            if self.renormalize:
                a = a / a.sum(dim=1, keepdim=True).clamp(min=self.eps)
            # padding adds nothing: target and attention are both eps there, where every divergence is 0
            divergence = DIVERGENCES[self.divergence](target.clamp(min=self.eps), a.clamp(min=self.eps))
            return self.reduce(divergence.sum(dim=1), mask)

    def moments(
        self, attention: Tensor, mask: Tensor | None = None, positions: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the mean and standard deviation (B, H) of the target normal of attention (B, N, H)."""
        a, mask = self.real_attention(attention.detach(), mask)
        mean, variance = self._moments(a, _grid(a, mask, positions))
        return mean.squeeze(1), variance.sqrt().squeeze(1)

    def _moments(self, a: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        total = a.sum(dim=1, keepdim=True).clamp(min=self.eps)
        mean = (a * grid).sum(dim=1, keepdim=True) / total
        variance = (a * (grid - mean).square()).sum(dim=1, keepdim=True) / total
        return mean, variance.clamp(min=max(self.eps, (self.min_sd or 0.0) ** 2))

    def _target(self, a: Tensor, mask: Tensor, positions: Tensor | None) -> Tensor:
        grid = _grid(a, mask, positions)
        mean, variance = self._moments(a, grid)
        # softmax of the exponent, since the density underflows far from the mean and would no longer sum to one
        return masked_softmax(-(grid - mean).square() / (2 * variance), mask.squeeze(-1))


def _grid(a: Tensor, mask: Tensor, positions: Tensor | None) -> Tensor:
    """Return positions (B, N, 1) in the dtype of ``a``, zero at padding."""
    if positions is None:
        return torch.arange(1, a.shape[1] + 1, dtype=a.dtype, device=a.device).view(1, -1, 1)
    check_positions(positions, a.shape[:2], mask.squeeze(-1))
    return positions.to(a).unsqueeze(-1).masked_fill(~mask, 0.0)


def _forward_kl(r: Tensor, a: Tensor) -> Tensor:
    return r * (r.log() - a.log())


def _reverse_kl(r: Tensor, a: Tensor) -> Tensor:
    return a * (a.log() - r.log())


def _squared_error(r: Tensor, a: Tensor) -> Tensor:
    return (r - a).square()


DIVERGENCES = {"forward_kl": _forward_kl, "reverse_kl": _reverse_kl, "squared_error": _squared_error}
