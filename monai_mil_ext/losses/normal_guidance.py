"""Loss that draws attention towards a normal distribution over the ordered instances of a bag."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_mil_ext.networks.layers import masked_softmax
from monai_mil_ext.utils import check_positive_number

from .attention_loss import GuidanceLoss

__all__ = ["NormalGuidanceLoss"]


class NormalGuidanceLoss(GuidanceLoss):
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
        super().__init__(divergence, eps, renormalize, reduction)
        check_positive_number(min_sd=1.0 if min_sd is None else min_sd)
        self.min_sd = min_sd

    def target(self, a: Tensor, mask: Tensor, positions: Tensor | None) -> Tensor:
        """Compute the discrete normal, see :py:class:`GuidanceLoss`."""
        grid = _grid(a, positions)
        mean, variance = self._moments(a, grid)
        # softmax of the exponent, since the density underflows far from the mean and would no longer sum to one
        return masked_softmax(-(grid - mean).square() / (2 * variance), mask.squeeze(-1))

    def moments(
        self, attention: Tensor, mask: Tensor | None = None, positions: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the mean and standard deviation (B, H) of the target normal of attention (B, N, H)."""
        a, mask = self.real_attention(attention.detach(), mask)
        mean, variance = self._moments(a, _grid(a, self.real_positions(positions, a, mask)))
        return mean.squeeze(1), variance.sqrt().squeeze(1)

    def _moments(self, a: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        total = a.sum(dim=1, keepdim=True).clamp(min=self.eps)
        mean = (a * grid).sum(dim=1, keepdim=True) / total
        variance = (a * (grid - mean).square()).sum(dim=1, keepdim=True) / total
        return mean, variance.clamp(min=max(self.eps, (self.min_sd or 0.0) ** 2))


def _grid(a: Tensor, positions: Tensor | None) -> Tensor:
    """Return the positions, by default the numbers 1, 2, ..., N (1, N, 1) of the instances."""
    if positions is not None:
        return positions
    return torch.arange(1, a.shape[1] + 1, dtype=a.dtype, device=a.device).view(1, -1, 1)
