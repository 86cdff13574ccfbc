"""Bootstrap resampling of rows or groups, and percentile intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

__all__ = ["percentile_interval", "resampled_rows"]


def resampled_rows(num_rows: int, groups: Sequence[Any] | None, num_samples: int, seed: int) -> Iterator[list[int]]:
    """Yield the row indices of each bootstrap sample, drawing rows or whole groups with replacement.

    Args:
        num_rows: number of rows.
        groups: group of each row; whole groups are drawn, so samples may differ in length. None draws rows.
        num_samples: number of samples.
        seed: random seed.

    Example:
        >>> [sorted(rows) for rows in resampled_rows(3, "aab", 3, 0)]
        [[2, 2], [0, 1, 2], [0, 0, 1, 1]]
    """
    clusters: dict[Any, list[int]] = {}
    for i in range(num_rows):
        clusters.setdefault(i if groups is None else groups[i], []).append(i)
    members, rng = list(clusters.values()), np.random.default_rng(seed)
    for _ in range(num_samples):
        yield [i for k in rng.integers(0, len(members), len(members)) for i in members[k]]


def percentile_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the limits of the central 95 % of the finite values, NaN without any.

    Example:
        >>> percentile_interval([0.0, float("nan"), 100.0])
        (2.5, 97.5)
    """
    finite = np.asarray(values)[np.isfinite(values)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)
