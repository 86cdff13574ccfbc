"""Choice of the instances that a network in training does not see, by the scores of its teacher."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from monai_mil_ext.utils import check_fraction

__all__ = ["HiddenInstances"]


@dataclass(frozen=True)
class HiddenInstances:
    r"""Choice of instances to hide in training: some of the highest scores, the lowest, and others at random.

    Of a bag of n instances, the :math:`\lceil n r_h / q \rceil` of the highest scores are candidates, of which a random
    part q is hidden; further the :math:`\lceil n r_l \rceil` of the lowest scores, and :math:`\lceil n r \rceil` at
    random. At least one instance remains. With several rows of scores, each marks its own share, and the instances that
    most rows mark are taken.

    Args:
        high: fraction :math:`r_h` of the highest scores.
        candidates: fraction q of the candidates that is hidden; if it is smaller than ``high``, then of all instances.
        low: fraction :math:`r_l` of the lowest scores.
        random: fraction r at random.

    Raises:
        ValueError: when a fraction is not in [0, 1], or ``candidates`` is 0.

    References:
        Tang et al., "Multiple Instance Learning Framework with Masked Hard Instance Mining for Whole Slide Image
        Classification", arXiv:2307.15254.

    Example:
        >>> scores = torch.tensor([[[3.0], [1.0], [2.0], [0.0]]])
        >>> HiddenInstances(high=0.25, low=0.25, candidates=1.0)(scores, torch.ones(1, 4) > 0).tolist()
        [[True, False, False, True]]
    """

    high: float = 0.03
    candidates: float = 0.5
    low: float = 0.0
    random: float = 0.0

    def __post_init__(self) -> None:
        check_fraction(high=self.high, candidates=self.candidates, low=self.low, random=self.random)
        if not self.candidates:
            raise ValueError(f"`candidates` must be positive, got {self.candidates}.")

    @property
    def hides_any(self) -> bool:
        """True if any instance is hidden."""
        return max(self.high, self.low, self.random) > 0

    def scaled(self, factor: float) -> HiddenInstances:
        """Return the same choice with ``factor`` times the fraction of the highest scores."""
        return replace(self, high=self.high * factor)

    def __call__(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Return which instances (B, N) are hidden, by scores (B, N, S); ``mask`` (B, N) is True for valid ones."""
        hidden = torch.zeros_like(mask)
        size = mask.sum(1, keepdim=True).double()
        if self.high:
            part = max(self.candidates, self.high)
            count = (size * self.high / part).ceil()
            pool = _most_voted(scores, mask, count)
            hidden = pool if part == 1 else _first(_draw(scores), pool, (part * count).ceil())
        if self.low:
            hidden = hidden | _most_voted(-scores, mask, (size * self.low).ceil())
        if self.random:
            hidden = hidden | _first(_draw(scores), mask, (size * self.random).ceil())
        if not self.hides_any:
            return hidden
        rest = (mask & ~hidden).any(1, keepdim=True)
        return hidden & (rest | ~_first(_draw(scores), mask, torch.ones_like(size)))


def _draw(scores: Tensor) -> Tensor:
    return torch.rand(scores.shape[:2], device=scores.device)


def _most_voted(scores: Tensor, mask: Tensor, count: Tensor) -> Tensor:
    """Return the ``count`` (B, 1) instances that most rows of scores (B, N, S) have among their highest."""
    ranks = torch.stack([_ranks(-row, mask) for row in scores.unbind(2)], 2)
    votes = (ranks < count.unsqueeze(2)).sum(2)
    # of equal votes the lower mean rank counts, and with one row this is its rank
    mean = ranks.double().mean(2) / (1 + mask.shape[1])
    return _first(mean - votes, mask, count)


def _first(keys: Tensor, mask: Tensor, count: Tensor) -> Tensor:
    """Return the ``count`` (B, 1) instances of ``mask`` (B, N) with the smallest keys (B, N)."""
    return (_ranks(keys, mask) < count) & mask


def _ranks(keys: Tensor, mask: Tensor) -> Tensor:
    """Return the rank (B, N) of each instance of ``mask`` by its key, from 0; all others are last."""
    return keys.masked_fill(~mask, float("inf")).argsort(dim=1, stable=True).argsort(1)
