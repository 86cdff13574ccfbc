"""Whether two models differ on the same bags."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from monai_mil_ext.utils import check_positive

from .resampling import percentile_interval, resampled_rows

__all__ = ["paired_bootstrap"]


def paired_bootstrap(
    rows_a: Sequence[Any],
    rows_b: Sequence[Any],
    statistic: Callable[[Sequence[Any]], Mapping[str, float]],
    groups: Sequence[Any] | None = None,
    num_samples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Difference a - b of each value of ``statistic``, with a 95 % percentile interval and a two-sided p.

    Every sample draws the same rows of both, so what makes a bag hard for both cancels. The p is twice the share of
    samples whose difference is 0 or of the other sign than the one observed, at most 1 and at least one over the
    number of samples, which can't tell anything smaller. Samples on which a difference is NaN are left out.

    Args:
        rows_a: of one model, one a bag.
        rows_b: of the other model, the same bags in the same order.
        statistic: values by name of a list of rows.
        groups: as long as the rows; whole groups (patients) are drawn instead of rows.
        num_samples: how often to draw.
        seed: of the draw.

    Returns:
        ``difference``, ``low``, ``high`` and ``p`` of each value.

    Raises:
        ValueError: when there is no row or no sample, or rows or groups differ in length.

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

    def differences(picked: Sequence[int]) -> dict[str, float]:
        a, b = (statistic([rows[i] for i in picked]) for rows in (rows_a, rows_b))
        return {name: float(a[name] - b[name]) for name in a}

    samples = [differences(picked) for picked in resampled_rows(len(rows_a), groups, num_samples, seed)]
    observed = differences(range(len(rows_a)))
    return {name: _summary(value, [sample[name] for sample in samples]) for name, value in observed.items()}


def _summary(observed: float, samples: Sequence[float]) -> dict[str, float]:
    low, high = percentile_interval(samples)
    finite = np.asarray(samples)[np.isfinite(samples)]
    p = float("nan")
    if np.isfinite(observed) and len(finite):
        p = float(np.clip(2 * np.mean(finite * np.sign(observed) <= 0), 1 / len(finite), 1))
    return {"difference": observed, "low": low, "high": high, "p": p}
