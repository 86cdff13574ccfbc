"""Compaction of a bag: valid instances moved to its front, for layers that depend on neighbors."""

from typing import Optional

import torch
from torch import Tensor

__all__ = ["compact", "compact_order", "uncompact"]


def compact_order(mask: Tensor) -> Tensor:
    """Return the target index (B, N) of each instance when the valid ones come first, in their order.

    Example:
        >>> compact_order(torch.tensor([[False, True, False, True]])).tolist()
        [[2, 0, 3, 1]]
    """
    rank = mask.cumsum(1)
    return torch.where(mask, rank - 1, rank[:, -1:] + (~mask).cumsum(1) - 1)


def compact(x: Tensor, order: Optional[Tensor]) -> Tensor:
    """Move instances (B, N, F) to the indices ``order`` (B, N); without an order, return ``x`` itself."""
    if order is None:
        return x
    return torch.zeros_like(x).scatter(1, order.unsqueeze(-1).expand_as(x), x)


def uncompact(x: Tensor, order: Optional[Tensor]) -> Tensor:
    """Undo :py:func:`compact`: move instances (B, N, E), with any number of features, back to their old indices.

    Example:
        >>> x, mask = torch.rand(2, 5, 3), torch.rand(2, 5) < 0.5
        >>> torch.equal(uncompact(compact(x, compact_order(mask)), compact_order(mask)), x)
        True
    """
    if order is None:
        return x
    return x.gather(1, order.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
