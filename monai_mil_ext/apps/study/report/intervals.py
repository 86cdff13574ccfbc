"""Bootstrap by patient: copies of each case in each resample, and 95 % intervals from the values of the resamples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.utils import check_choice, check_positive, optional_dependency

__all__ = ["SCALES", "as_estimate", "case_weights", "difference_estimate", "holm", "number", "wilson_interval"]

ndtr = optional_dependency("", "scipy.special", "ndtr")
Array = NDArray[Any]
MIN_PATIENTS = 5  # of a fold within which patients are drawn
Z = 1.959963984540054  # 97.5 % quantile of the normal distribution
SCALES = {
    "share": (0.0, 1.0),  # logit
    "correlation": (-1.0, 1.0),  # Fisher's z
    "squares": (0.0, 2.0),  # logit of half of it: the Brier score of several classes
    "error": (0.0, math.inf),  # logarithm
    "determination": (-math.inf, 1.0),  # logarithm of what is not explained
    "free": (-math.inf, math.inf),
}


def number(value: float) -> float | None:
    """Return a finite value as a float, else None, which JSON can hold.

    Example:
        >>> number(np.float64(0.5)), number(float("nan"))
        (0.5, None)
    """
    return float(value) if np.isfinite(value) else None


def case_weights(patients: Sequence[str], folds: Sequence[int], num_samples: int = 1000, seed: int = 0) -> Array:
    """Draw patients with replacement, and count how often each case is drawn.

    Patients are drawn within the fold of their first repeat, since the sizes of folds do not vary by chance: drawn over
    all folds, pairs within small folds would vary more than in new samples. Folds with fewer than five patients are one
    group. The draws depend on patients, folds and seed alone, so that those of all methods are the same.

    Args:
        patients: patient of each of the R cases.
        folds: fold of each case.
        num_samples: number S of resamples.
        seed: random seed.

    Returns:
        Counts (1 + S, R); the first row is the sample itself, one of each case.

    Example:
        >>> case_weights(["a", "b", "a"], [0, 0, 0], num_samples=2, seed=4)
        array([[1., 1., 1.],
               [2., 0., 2.],
               [1., 1., 1.]])
    """
    check_positive(num_samples=num_samples)
    names, index = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    group = np.full(len(names), np.iinfo(np.int64).max)
    np.minimum.at(group, index, np.asarray(folds, dtype=np.int64))
    numbers, sizes = np.unique(group, return_counts=True)
    group[np.isin(group, numbers[sizes < MIN_PATIENTS])] = -1
    counts = np.ones((1 + num_samples, len(names)))
    for k in np.unique(group):
        members = np.flatnonzero(group == k)
        rng = np.random.default_rng([seed, int(k) + 1])
        counts[1:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), num_samples)
    return counts[:, index]


def wilson_interval(share: float, count: float) -> tuple[float, float]:
    """Compute Wilson's 95 % interval of a share of ``count`` independent cases.

    Example:
        >>> [round(limit, 3) for limit in wilson_interval(1.0, 10)]
        [0.722, 1.0]
    """
    if not count > 0 or not np.isfinite(share):
        return math.nan, math.nan
    center = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2)) / (1 + Z**2 / count)
    low = 0.0 if share <= 0 else center - half
    return low, 1.0 if share >= 1 else center + half


def as_estimate(
    samples: Array, num_patients: int, scale: str = "share", count: float = math.nan
) -> dict[str, float | None]:
    r"""Summarize the values of a metric over resamples as its value and 95 % interval.

    The interval is symmetric on a scale without bounds (logit of a share, Fisher's z of a correlation, logarithm of an
    error without an upper bound), with the standard deviation of the resamples, times :math:`\sqrt{P / (P - 1)}` for P
    patients, as standard error. Percentiles of the resamples hold the truth less often than they state if patients are
    few.

    Args:
        samples: values (1 + S,): that of the sample, then those of the resamples; NaN where it is undefined.
        num_patients: number P of patients.
        scale: one of ``SCALES``.
        count: number of patients that decide the value. A share that is exactly 0 or 1 does not vary over resamples;
            it gets Wilson's interval of this number.

    Returns:
        ``value``, ``low`` and ``high``; None if undefined.

    Example:
        >>> {k: round(v, 3) for k, v in as_estimate(np.array([0.5, 0.4, 0.6, 0.5, 0.5]), 20).items()}
        {'value': 0.5, 'low': 0.341, 'high': 0.659}
    """
    check_choice("scale", scale, SCALES)
    value = float(samples[0])
    if scale == "determination":  # R² has a long tail below, so its resamples vary on the logarithm of 1 - R²
        unexplained = np.maximum(1 - samples, 1e-3 * max(1 - value, 1e-12))
        error = _standard_error(np.log(unexplained[1:]), num_patients) * (1 - value)
    else:
        error = _standard_error(samples[1:], num_patients)
    low, high = _limits(value, error, scale, count)
    return {"value": number(value), "low": number(low), "high": number(high)}


def _standard_error(samples: Array, num_patients: int) -> float:
    """Return the standard error by the resamples, NaN if most of them have no value or there is one patient."""
    finite = samples[np.isfinite(samples)]
    if num_patients < 2 or len(finite) < max(2, len(samples) / 2):
        return math.nan
    return float(finite.std(ddof=1)) * math.sqrt(num_patients / (num_patients - 1))


def _limits(value: float, error: float, scale: str, count: float) -> tuple[float, float]:
    lowest, highest = SCALES[scale]
    if not np.isfinite(value) or np.isnan(error):
        return math.nan, math.nan
    if not lowest + 1e-12 < value < highest - 1e-12:  # at a bound
        return wilson_interval(round(value), count) if scale == "share" else (math.nan, math.nan)
    if scale == "free":
        return value - Z * error, value + Z * error
    if scale == "error":
        factor = math.exp(min(Z * error / value, 700))
        return value / factor, value * factor
    if scale == "determination":
        factor = math.exp(min(Z * error / (1 - value), 700))
        return 1 - (1 - value) * factor, 1 - (1 - value) / factor
    width = highest - lowest  # a share, or a correlation as a share of its range
    share, slope = (value - lowest) / width, (value - lowest) * (highest - value) / width
    logit, half = math.log(share / (1 - share)), Z * error / slope
    low, high = (1 / (1 + math.exp(-np.clip(logit + step, -700, 700))) for step in (-half, half))
    return lowest + width * low, lowest + width * high


def difference_estimate(samples: Array, num_patients: int) -> dict[str, float | None]:
    """Summarize a paired difference over resamples as its value, 95 % interval and two-sided p-value.

    The p-value compares the difference, over the standard error by the resamples, with the normal distribution. It is
    at least 1 / S, the resolution of S resamples.

    Args:
        samples: differences (1 + S,): that of the sample, then those of the resamples.
        num_patients: number of patients.

    Returns:
        ``difference``, ``low``, ``high`` and ``p``; None if undefined. The p-value of two methods that never differ is
        1.

    Example:
        >>> difference_estimate(np.zeros(3), 10)
        {'difference': 0.0, 'low': 0.0, 'high': 0.0, 'p': 1.0}
    """
    value, error = float(samples[0]), _standard_error(samples[1:], num_patients)
    low, high = _limits(value, error, "free", math.nan)
    p = math.nan
    if np.isfinite(value) and error > 1e-12:
        p = max(float(2 * ndtr(-abs(value) / error)), 1 / (len(samples) - 1))
    elif value == 0 and error <= 1e-12:
        p = 1.0
    return {"difference": number(value), "low": number(low), "high": number(high), "p": number(p)}


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct p-values for several comparisons by Holm's method; undefined ones don't count.

    References:
        Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6(2), 1979

    Example:
        >>> holm([0.01, None, 0.04, 0.03])
        [0.03, None, 0.06, 0.06]
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        corrected[i] = largest
    return corrected
