"""Loss that draws attention towards a smoothed form of itself along the ordered instances of a bag."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from monai_mil_ext.utils import check_positive_number

from .attention_loss import GuidanceLoss

__all__ = ["KernelGuidanceLoss"]

REACH = 4.0  # standard deviations after which the kernel is zero
TINY = 1e-30
INSTANCES = 2.0  # standard deviation without positions
ROUNDS = 12  # of the scaling; what they leave over is added to the diagonal


class KernelGuidanceLoss(GuidanceLoss):
    r"""Divergence of the attention of each bag from the same attention, smoothed along the order of its instances.

    .. math::
        r = \frac{K a}{\sum_j a_j}, \quad
        K_{ij} = d_i d_j \exp\Big(-\frac{(p_i - p_j)^2}{2 s^2}\Big) + e_i \delta_{ij}, \quad
        L = \sum_j D(r_j, a_j)

    with positions :math:`p` and scales d of the valid instances such that K is symmetric and each of its rows and
    columns sums to one: K moves no mass into the padding or over the ends of a bag, and keeps uniform attention. A few
    rounds of symmetric scaling find d; e is what they leave over. The kernel ends at four standard deviations. The
    target r has no gradient. All computation is in float32 (float64 stays float64), also under autocast. Instances must
    be in anatomical order.

    In contrast to :py:class:`NormalGuidanceLoss`, attention on one instance is neither a minimum nor without gradient,
    several separate bells remain several, and attention is drawn to neither the middle nor the ends of a bag: away from
    the ends, the mean position of the target is that of the attention. The only minimum is uniform attention.

    Args:
        sd: standard deviation s of the kernel, in instances, or in the unit of the positions (such as mm) where the
            loss is called with positions; ``None`` takes two instances, and no positions. With positions, memory grows
            with the square of the instances.
        divergence: ``"forward_kl"`` :math:`r\log(r/a)`, ``"reverse_kl"`` :math:`a\log(a/r)` or ``"squared_error"``
            :math:`(r-a)^2`.
        eps: lower bound of the sum of attention, of the target and of the attention. Attention below it has no
            gradient, so that a larger bound would hold attention on one instance.
        renormalize: whether to divide the attention by its sum first, for rows that sum to less than one, such as
            those of a class token.
        reduction: ``"mean"`` over non-empty bags, ``"sum"`` or ``"none"``; an empty bag gives 0.

    Raises:
        ValueError: when an option is unknown, ``sd`` or the lower bound is not positive, an input has the wrong shape,
            a position of a valid instance is not finite, or there are positions and no ``sd``.

    Example:
        >>> loss = KernelGuidanceLoss(sd=2.0)
        >>> bell = torch.softmax(-(torch.arange(48.0) - 24) ** 2 / 50, dim=0).view(1, 48, 1)
        >>> two_bells = (bell.roll(-12, dims=1) + bell.roll(12, dims=1)) / 2
        >>> one_slice = torch.eye(48)[None, :, 24:25]
        >>> [round(loss(attention).item(), 2) for attention in (bell, two_bells, one_slice)]
        [0.01, 0.0, 53.19]
    """

    def __init__(
        self,
        sd: float | None = None,
        divergence: str = "forward_kl",
        eps: float = 1e-30,
        renormalize: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(divergence, eps, renormalize, reduction)
        check_positive_number(sd=INSTANCES if sd is None else sd)
        self.sd = sd

    def target(self, a: Tensor, mask: Tensor, positions: Tensor | None) -> Tensor:
        """Smooth the attention, see :py:class:`GuidanceLoss`."""
        if not a.numel():
            return a
        if positions is not None and self.sd is None:
            raise ValueError("`sd` must be given in the unit of `positions`, such as 10 for mm, got None.")
        valid = mask.to(a)
        kernel = None if positions is None else self._kernel(positions)
        d = valid
        for _ in range(ROUNDS):
            d = (d / self._sum(d, kernel)).sqrt().masked_fill(~mask, 0.0)
        rows = d * self._sum(d, kernel)
        highest = rows.amax(dim=1, keepdim=True).clamp(min=TINY)
        smooth = d * self._sum(d * a, kernel) / highest + (1 - rows / highest) * a
        return smooth / a.sum(dim=1, keepdim=True).clamp(min=self.eps)

    @property
    def _width(self) -> float:
        return INSTANCES if self.sd is None else self.sd

    def _kernel(self, positions: Tensor) -> Tensor:
        """Return the kernel (B, N, N) between the instances of each bag."""
        distance = (positions - positions.transpose(1, 2)).abs() / self._width
        return torch.where(distance <= REACH, torch.exp(-distance.square() / 2), 0.0)

    def _sum(self, x: Tensor, kernel: Tensor | None) -> Tensor:
        """Return the sums of ``x`` (B, N, H) weighted by the kernel around each instance."""
        if kernel is not None:
            return kernel @ x
        radius = min(math.floor(REACH * self._width), x.shape[1] - 1)
        steps = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device) / self._width
        weight = torch.exp(-steps.square() / 2).view(1, 1, -1)
        rows = x.transpose(1, 2).reshape(-1, 1, x.shape[1])
        return functional.conv1d(rows, weight, padding=radius).reshape(len(x), -1, x.shape[1]).transpose(1, 2)
