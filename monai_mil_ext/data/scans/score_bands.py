"""Bands of slice scores, for viewers that display only labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ScoreBands"]


@dataclass(frozen=True)
class ScoreBands:
    """Assignment of slices to bands, the strongest first, by rank or by score.

    With ``top_k = (4, 12)`` band 1 has the 4 highest scores and band 2 the next 8; of equal scores the earlier slice
    ranks higher. With ``thresholds = (0.5, 0.2)`` band 1 has scores of at least 0.5 and band 2 those from 0.2 to 0.5.
    A slice whose score is not positive is in no band.

    Args:
        top_k: last rank of every band, in increasing order.
        thresholds: lowest score of every band, in decreasing order; if given, ``top_k`` is ignored.

    Raises:
        ValueError: when there is no band, or the limits are not in this order.

    Example:
        >>> ScoreBands(top_k=(1, 3))(np.array([0.1, 0.5, 0.3, 0.0]))
        array([2, 1, 2, 0], dtype=uint8)
        >>> ScoreBands(thresholds=(0.2,)).names
        ['score of at least 0.2']
    """

    top_k: Sequence[int] = (4, 12)
    thresholds: Sequence[float] = ()

    def __post_init__(self) -> None:
        if self.thresholds:
            if list(self.thresholds) != sorted(set(self.thresholds), reverse=True) or min(self.thresholds) <= 0:
                raise ValueError(f"`thresholds` must be positive and decreasing, got {list(self.thresholds)}.")
        elif not self.top_k or list(self.top_k) != sorted(set(self.top_k)) or min(self.top_k) < 1:
            raise ValueError(f"`top_k` must be positive and increasing, got {list(self.top_k)}.")

    @property
    def names(self) -> list[str]:
        """Names of the bands."""
        if self.thresholds:
            highest, *others = self.thresholds
            return [f"score of at least {highest:g}"] + [f"score from {low:g} on" for low in others]
        firsts = [1, *(last + 1 for last in self.top_k[:-1])]
        return [
            f"slice of rank {first}" if first == last else f"slices ranked {first} to {last}"
            for first, last in zip(firsts, self.top_k, strict=True)
        ]

    def __call__(self, scores: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Return the number (N,) of the band of each of ``scores`` (N,); 0 is no band."""
        if self.thresholds:
            band = 1 + sum((scores < low).astype(int) for low in self.thresholds)
        else:
            rank = np.empty(len(scores), dtype=int)
            rank[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
            band = 1 + np.searchsorted(self.top_k, rank, side="right")
        return np.where((band <= len(self.names)) & (scores > 0), band, 0).astype(np.uint8)
