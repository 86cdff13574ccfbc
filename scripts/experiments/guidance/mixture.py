"""Guidance by a mixture of normals, an alternative to the kernel that is compared here and not part of the package."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_mil_ext.losses import GuidanceLoss
from monai_mil_ext.networks.layers import masked_softmax

__all__ = ["MixtureGuidanceLoss"]


class MixtureGuidanceLoss(GuidanceLoss):
    r"""Divergence of the attention of each bag from a mixture of discrete normals that is fitted to it.

    The components start at the quantiles :math:`(c - 1/2)/k` of the attention with its standard deviation divided by
    their number, and take some steps of expectation and maximization (Dempster, Laird, Rubin 1977) weighted by it.

    Args:
        components: number k of normals.
        steps: number of steps.
        min_sd: lower bound of each standard deviation, in instances.
    """

    def __init__(self, components: int = 2, steps: int = 6, min_sd: float = 1.0) -> None:
        super().__init__()
        self.components = components
        self.steps = steps
        self.min_sd = min_sd

    def target(self, a: Tensor, mask: Tensor, positions: Tensor | None) -> Tensor:
        """Fit the mixture, see :py:class:`GuidanceLoss`."""
        if positions is None:
            positions = torch.arange(a.shape[1], dtype=a.dtype, device=a.device).view(1, -1, 1)
        a = a / a.sum(dim=1, keepdim=True).clamp(min=self.eps)
        a, p = a.unsqueeze(-1), positions.unsqueeze(-1)  # (B, N, H, 1)
        first = (torch.arange(self.components, dtype=a.dtype, device=a.device) + 0.5) / self.components
        below = (a.cumsum(dim=1) < first).sum(dim=1, keepdim=True).clamp(max=a.shape[1] - 1)  # (B, 1, H, k)
        mean = p.expand(len(a), -1, a.shape[2], self.components).gather(1, below)
        center = (a * p).sum(dim=1, keepdim=True)
        variance = (a * (p - center).square()).sum(dim=1, keepdim=True) / self.components**2
        variance = variance.clamp(min=self.min_sd**2).expand_as(mean)
        share = torch.full_like(mean, 1 / self.components)
        for _ in range(self.steps):
            density = share.log() - variance.log() / 2 - (p - mean).square() / (2 * variance)
            part = a * density.softmax(dim=-1)
            weight = part.sum(dim=1, keepdim=True).clamp(min=self.eps)
            mean = (part * p).sum(dim=1, keepdim=True) / weight
            variance = ((part * (p - mean).square()).sum(dim=1, keepdim=True) / weight).clamp(min=self.min_sd**2)
            share = weight / weight.sum(dim=-1, keepdim=True)
        bells = masked_softmax((-(p - mean).square() / (2 * variance)).flatten(2), mask.squeeze(-1))
        return (bells.view(*a.shape[:3], -1) * share).sum(dim=-1)
