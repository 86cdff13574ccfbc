"""Smoothing of values along the chain of the ordered instances of a bag."""

from typing import Optional

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_mil_ext.utils import check_positive

from .compact import compact, compact_order, uncompact
from .masked import zero_out_padding

__all__ = ["ChainSmoother"]


class ChainSmoother(nn.Module):
    r"""Smoothing operator that repeatedly mixes each instance with its neighbors in the order of the bag.

    .. math:: G_0 = U, \quad G_t = \alpha A G_{t-1} + (1 - \alpha) U, \quad \alpha = \operatorname{sigmoid}(\text{raw})

    with the adjacency matrix A of the valid instances, in order, divided by the number of neighbors. Padding between
    valid instances is skipped. An instance without neighbors is not changed. The time is O(T N E); all computation is
    in float32 (float64 stays float64).

    Args:
        num_steps: number T of steps.
        num_neighbors: number of neighbors on either side.
        symmetric: whether to normalize the adjacency matrix as :math:`D^{-1/2} A D^{-1/2}` instead of
            :math:`D^{-1} A`; constants are then not preserved.

    Raises:
        ValueError: when a number is not positive.

    References:
        Castro-Macias et al., "Sm: enhanced localization in Multiple Instance Learning for medical imaging
        classification", arXiv:2410.03276.

    Example:
        >>> impulse = torch.tensor([0.0, 0, 1, 0, 0]).view(1, 5, 1)
        >>> ChainSmoother()(impulse).flatten().tolist()
        [0.083496..., 0.166503..., 0.583496..., 0.166503..., 0.083496...]
    """

    def __init__(self, num_steps: int = 10, num_neighbors: int = 1, symmetric: bool = False) -> None:
        super().__init__()
        check_positive(num_steps=num_steps, num_neighbors=num_neighbors)
        self.num_steps = num_steps
        self.num_neighbors = num_neighbors
        self.symmetric = symmetric
        self.raw = nn.Parameter(torch.zeros(()))

    def forward(self, u: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Smooth values (B, N, E), with zeros at padding; ``mask`` (B, N) is True for a valid instance."""
        order: Optional[Tensor] = None
        weights = torch.ones_like(u[..., :1], dtype=torch.promote_types(u.dtype, torch.float32))
        if mask is not None:
            order = compact_order(mask)
            weights = compact(mask.unsqueeze(-1).to(weights.dtype), order)
        wide = compact(zero_out_padding(u, mask), order).to(weights.dtype)
        degree = _neighbor_sum(weights, self.num_neighbors) * weights
        scale = degree.clamp(min=1).sqrt() if self.symmetric else torch.ones_like(degree)
        # D^-1/2 A D^-1/2 is D^1/2 (D^-1 A) D^-1/2, so the same iteration serves both
        smooth = scale * self._iterate(wide / scale, weights / degree.clamp(min=1))
        smooth = torch.where(degree > 0, smooth, wide)
        return uncompact(smooth, order).to(u.dtype)

    def _iterate(self, u: Tensor, neighbor_weights: Tensor) -> Tensor:
        """Return G of compacted values (B, N, E) for the weights (B, N, 1) that instances give to each neighbor."""
        alpha = torch.sigmoid(self.raw.to(u.dtype))
        neighbor_weights, constant, g = alpha * neighbor_weights, (1 - alpha) * u, u
        for _ in range(self.num_steps):
            g = neighbor_weights * _neighbor_sum(g, self.num_neighbors) + constant
        return g


def _shift(u: Tensor, distance: int) -> Tensor:
    """Move row n - ``distance`` of (B, N, E) to row n, with zeros beyond the ends."""
    n = u.shape[1]
    if distance > 0:
        return functional.pad(u, [0, 0, distance, 0])[:, :n]
    return functional.pad(u, [0, 0, 0, -distance])[:, -distance:]


def _neighbor_sum(u: Tensor, num_neighbors: int) -> Tensor:
    """Sum over the neighbors of each row of (B, N, E), without the row itself."""
    total = _shift(u, 1) + _shift(u, -1)
    for distance in range(2, num_neighbors + 1):
        total = total + _shift(u, distance) + _shift(u, -distance)
    return total
