"""Smoothing over the chain that the ordered instances of a bag form."""

from typing import Optional

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_mil_ext.utils import check_positive

from .masked import zero_padding
from .packing import pack, packed_places, unpack

__all__ = ["ChainSmoother", "ExactChainSmoother"]


class ChainSmoother(nn.Module):
    r"""Mixes each instance with its neighbours in the order of the bag, a number of times.

    .. math:: G_0 = U, \quad G_t = \alpha A G_{t-1} + (1 - \alpha) U, \quad \alpha = \operatorname{sigmoid}(\text{raw})

    with A the adjacency of the real instances, in order, divided by the number of neighbours. Padding between real
    instances is stepped over. An instance without neighbours is left as it is. It takes O(T N E), in float32 (float64
    stays float64).

    Args:
        num_steps: T.
        num_neighbors: how many instances on either side are neighbours.
        symmetric: whether A is :math:`D^{-1/2} A D^{-1/2}` and not :math:`D^{-1} A`; it does not keep constants.

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
        """Smooth values (B, N, E) of values (B, N, E), zero at padding; ``mask`` (B, N) is True for a real one."""
        places: Optional[Tensor] = None
        real = torch.ones_like(u[..., :1], dtype=torch.promote_types(u.dtype, torch.float32))
        if mask is not None:
            places = packed_places(mask)
            real = pack(mask.unsqueeze(-1).to(real.dtype), places)
        wide = pack(zero_padding(u, mask), places).to(real.dtype)
        degree = neighbor_sum(real, self.num_neighbors) * real
        scale = degree.clamp(min=1).sqrt() if self.symmetric else torch.ones_like(degree)
        # D^-1/2 A D^-1/2 is D^1/2 (D^-1 A) D^-1/2: one solver serves both
        smooth = scale * self.solve(wide / scale, real, real / degree.clamp(min=1))
        smooth = torch.where(degree > 0, smooth, wide)
        return unpack(smooth, places).to(u.dtype)

    def solve(self, u: Tensor, real: Tensor, share: Tensor) -> Tensor:
        """G of packed values (B, N, E), where real instances (B, N, 1) take their ``share`` of each neighbour."""
        alpha = torch.sigmoid(self.raw.to(u.dtype))
        share, kept, g = alpha * share, (1 - alpha) * u, u
        for _ in range(self.num_steps):
            g = share * neighbor_sum(g, self.num_neighbors) + kept
        return g


class ExactChainSmoother(ChainSmoother):
    r"""The limit of :py:class:`ChainSmoother` for infinitely many steps.

    .. math:: G = (1 - \alpha) (I - \alpha A)^{-1} U

    The system is tridiagonal: it is solved by cyclic reduction, which eliminates neighbours at distances 1, 2, 4, ...
    of all instances at once, in about log2 N steps of O(N E). The number of steps hangs on N, so that an exported
    program serves bags of one size.

    Args:
        symmetric: as in :py:class:`ChainSmoother`.

    References:
        Castro-Macias et al., "Sm: enhanced localization in Multiple Instance Learning for medical imaging
        classification", arXiv:2410.03276; Hockney, "A fast direct solution of Poisson's equation using Fourier
        analysis", J. ACM 12 (1965).

    Example:
        >>> impulse = torch.tensor([0.0, 0, 1, 0, 0]).view(1, 5, 1)
        >>> (12 * ExactChainSmoother()(impulse)).flatten().tolist()
        [1.0..., 2.0..., 7.0..., 2.0..., 1.0...]
    """

    def __init__(self, symmetric: bool = False) -> None:
        super().__init__(symmetric=symmetric)

    def solve(self, u: Tensor, real: Tensor, share: Tensor) -> Tensor:
        """See :py:class:`ChainSmoother`."""
        alpha = torch.sigmoid(self.raw.to(u.dtype))
        lower, upper = -alpha * share * shifted(real, 1), -alpha * share * shifted(real, -1)
        diagonal, g, distance = torch.ones_like(real), (1 - alpha) * u, 1
        while distance < u.shape[1]:
            # rows beyond the ends are those of the identity
            below = -lower / (1 + shifted(diagonal - 1, distance))
            above = -upper / (1 + shifted(diagonal - 1, -distance))
            diagonal = diagonal + below * shifted(upper, distance) + above * shifted(lower, -distance)
            g = g + below * shifted(g, distance) + above * shifted(g, -distance)
            lower, upper = below * shifted(lower, distance), above * shifted(upper, -distance)
            distance *= 2
        return g / diagonal


def shifted(u: Tensor, distance: int) -> Tensor:
    """Row n of (B, N, E) becomes row n - ``distance``, zero where there is none."""
    n = u.shape[1]
    if distance > 0:
        return functional.pad(u, [0, 0, distance, 0])[:, :n]
    return functional.pad(u, [0, 0, 0, -distance])[:, -distance:]


def neighbor_sum(u: Tensor, num_neighbors: int) -> Tensor:
    """Sum over the neighbours of each row of (B, N, E), itself left out."""
    total = shifted(u, 1) + shifted(u, -1)
    for distance in range(2, num_neighbors + 1):
        total = total + shifted(u, distance) + shifted(u, -distance)
    return total
