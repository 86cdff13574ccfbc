"""A penalty on attention that is not one bell over the ordered instances of a bag."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from monai_mil_ext.networks.layers import masked_softmax
from monai_mil_ext.utils import check_choice

from .attention_loss import AttentionLoss

__all__ = ["NormalGuidanceLoss"]


class NormalGuidanceLoss(AttentionLoss):
    r"""Pulls the attention of each bag towards the discrete normal that has its own mean and variance.

    .. math::
        \mu = \frac{\sum_j p_j a_j}{A}, \quad
        \sigma^2 = \max\Big(\frac{\sum_j (p_j - \mu)^2 a_j}{A}, \epsilon\Big), \quad
        r = \operatorname{softmax}_j\Big(-\frac{(p_j - \mu)^2}{2\sigma^2}\Big), \quad
        L = \sum_j D(r_j, a_j)

    with :math:`A = \max(\sum_j a_j, \epsilon)` and positions :math:`p`. The target r carries no gradient; r and a are
    floored at :math:`\epsilon` before :math:`D`. Sums run over the real instances, heads are averaged, then bags.
    Everything is computed in float32 (float64 stays float64), under autocast too. Instances must be in anatomical
    order. Attention on one instance is a global minimum, unless ``min_sd`` is set; on a finite grid the term also
    draws spread-out attention to the middle of the bag.

    Args:
        divergence: ``"forward_kl"`` :math:`r\log(r/a)`, ``"reverse_kl"`` :math:`a\log(a/r)` or ``"squared_error"``
            :math:`(r-a)^2`.
        eps: floor of the sum, the variance, the target and the attention.
        min_sd: floor of :math:`\sigma`, in units of the positions.
        renormalize: whether rows that sum below one, as a class token's do, are divided by :math:`A` first.
        reduction: ``"mean"`` over the bags that have an instance, ``"sum"`` or ``"none"``; an empty bag gives 0.

    Raises:
        ValueError: when an option is none of these, a floor is not positive, or an input has the wrong shape.

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
        for name, value in {"eps": eps, "min_sd": 1.0 if min_sd is None else min_sd}.items():
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"`{name}` must be positive and finite, got {value!r}.")
        self.divergence = divergence
        self.eps = eps
        self.min_sd = min_sd
        self.renormalize = renormalize

    def forward(self, attention: Tensor, mask: Tensor | None = None, positions: Tensor | None = None) -> Tensor:
        """Loss of attention (B, N, H) at ``positions`` (B, N), which are 1, 2, ..., N if not given."""
        with torch.autocast(attention.device.type, enabled=False):
            a, real = self.real_attention(attention, mask)
            target = self._target(a.detach(), real, positions)
            if self.renormalize:
                a = a / a.sum(dim=1, keepdim=True).clamp(min=self.eps)
            # padding adds nothing: target and attention stand at the same floor there, where each divergence is 0
            divergence = DIVERGENCES[self.divergence](target.clamp(min=self.eps), a.clamp(min=self.eps))
            return self.reduce(divergence.sum(dim=1), real)

    def moments(
        self, attention: Tensor, mask: Tensor | None = None, positions: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (B, H) of the normal that attention (B, N, H) is compared with."""
        a, real = self.real_attention(attention.detach(), mask)
        mean, variance = self._moments(a, _grid(a, real, positions))
        return mean.squeeze(1), variance.sqrt().squeeze(1)

    def _moments(self, a: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        total = a.sum(dim=1, keepdim=True).clamp(min=self.eps)
        mean = (a * grid).sum(dim=1, keepdim=True) / total
        variance = (a * (grid - mean).square()).sum(dim=1, keepdim=True) / total
        return mean, variance.clamp(min=max(self.eps, (self.min_sd or 0.0) ** 2))

    def _target(self, a: Tensor, real: Tensor, positions: Tensor | None) -> Tensor:
        grid = _grid(a, real, positions)
        mean, variance = self._moments(a, grid)
        # a softmax of the exponent: the density itself is 0 far from the mean, and would no longer sum to one
        return masked_softmax(-(grid - mean).square() / (2 * variance), real.squeeze(-1))


def _grid(a: Tensor, real: Tensor, positions: Tensor | None) -> Tensor:
    """Positions (B, N, 1) in the type of ``a``, zero at padding."""
    if positions is None:
        return torch.arange(1, a.shape[1] + 1, dtype=a.dtype, device=a.device).view(1, -1, 1)
    if positions.shape != a.shape[:2]:
        raise ValueError(f"`positions` must have shape (B, N) = {tuple(a.shape[:2])}, got {tuple(positions.shape)}.")
    return positions.to(a).unsqueeze(-1).masked_fill(~real, 0.0)


def _forward_kl(r: Tensor, a: Tensor) -> Tensor:
    return r * (r.log() - a.log())


def _reverse_kl(r: Tensor, a: Tensor) -> Tensor:
    return a * (a.log() - r.log())


def _squared_error(r: Tensor, a: Tensor) -> Tensor:
    return (r - a).square()


DIVERGENCES = {"forward_kl": _forward_kl, "reverse_kl": _reverse_kl, "squared_error": _squared_error}
