"""Bootstrap resampling of cases, for intervals and paired differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from monai_mil_ext.utils import check_positive

__all__ = [
    "paired_bootstrap",
    "percentile_interval",
    "resampled_rows",
]


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


def paired_bootstrap(
    rows_a: Sequence[Any],
    rows_b: Sequence[Any],
    statistic: Callable[[Sequence[Any]], Mapping[str, float]],
    groups: Sequence[Any] | None = None,
    num_samples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Compute the difference a - b of each statistic with a 95 % percentile interval and a two-sided p-value.

    Every sample draws the same rows of both models, so that variation between bags that affects both cancels. The
    p-value is twice the fraction of samples whose difference is 0 or has the opposite sign of the observed one; it is
    at most 1 and at least 1 / ``num_samples``, the resolution of the bootstrap. Samples with a NaN difference are
    excluded.

    Args:
        rows_a: rows of one model, one per bag.
        rows_b: rows of the other model, the same bags in the same order.
        statistic: function that maps a list of rows to values by name.
        groups: group (patient) of each row; whole groups are drawn instead of rows.
        num_samples: number of bootstrap samples.
        seed: random seed.

    Returns:
        ``difference``, ``low``, ``high`` and ``p`` of each value.

    Raises:
        ValueError: if there are no rows or no samples, or rows or groups differ in length.

    References:
        Efron, Tibshirani, "An Introduction to the Bootstrap", Chapman & Hall, 1993

    Example:
        >>> paired_bootstrap([2.0, 3.0], [1.0, 2.0], lambda rows: {"mean": np.mean(rows)})
        {'mean': {'difference': 1.0, 'low': 1.0, 'high': 1.0, 'p': 0.001}}
    """
    check_positive(num_samples=num_samples)
    if not len(rows_a):
        raise ValueError("`rows_a` must have at least one row, got none.")
    for name, other in (("rows_b", rows_b), ("groups", groups)):
        if other is not None and len(other) != len(rows_a):
            raise ValueError(f"`{name}` must be as long as `rows_a` ({len(rows_a)}), got {len(other)}.")

    def differences(indices: Sequence[int]) -> dict[str, float]:
        a, b = (statistic([rows[i] for i in indices]) for rows in (rows_a, rows_b))
        return {name: float(a[name] - b[name]) for name in a}

    samples = [differences(indices) for indices in resampled_rows(len(rows_a), groups, num_samples, seed)]
    observed = differences(range(len(rows_a)))
    return {name: _summary(value, [sample[name] for sample in samples]) for name, value in observed.items()}


def _summary(observed: float, samples: Sequence[float]) -> dict[str, float]:
    low, high = percentile_interval(samples)
    finite = np.asarray(samples)[np.isfinite(samples)]
    p = float("nan")
    if np.isfinite(observed) and len(finite):
        p = float(np.clip(2 * np.mean(finite * np.sign(observed) <= 0), 1 / len(finite), 1))
    return {"difference": observed, "low": low, "high": high, "p": p}
