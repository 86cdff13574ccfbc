"""Bringing the real instances of a bag to its front, for what looks at neighbours."""

from typing import Optional

import torch
from torch import Tensor

__all__ = ["pack", "packed_places", "unpack"]


def packed_places(mask: Tensor) -> Tensor:
    """Where each slot of ``mask`` (B, N) goes, (B, N), when the real ones come first and all keep their order.

    Example:
        >>> packed_places(torch.tensor([[False, True, False, True]])).tolist()
        [[2, 0, 3, 1]]
    """
    real = mask.cumsum(1)
    return torch.where(mask, real - 1, real[:, -1:] + (~mask).cumsum(1) - 1)


def pack(x: Tensor, places: Optional[Tensor]) -> Tensor:
    """Instances (B, N, F) moved to ``places`` (B, N); ``x`` itself when there are none."""
    if places is None:
        return x
    return torch.zeros_like(x).scatter(1, places.unsqueeze(-1).expand_as(x), x)


def unpack(x: Tensor, places: Optional[Tensor]) -> Tensor:
    """What :py:func:`pack` moved, back where it was; of any number of features.

    Example:
        >>> x, mask = torch.rand(2, 5, 3), torch.rand(2, 5) < 0.5
        >>> torch.equal(unpack(pack(x, packed_places(mask)), packed_places(mask)), x)
        True
    """
    if places is None:
        return x
    return x.gather(1, places.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
