"""Decision thresholds from validation data, and their sensitivity and specificity on other data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["sensitivity_specificity", "threshold_at_sensitivity", "threshold_at_specificity", "threshold_at_youden"]


def threshold_at_specificity(label: Sequence[int], score: Sequence[float], specificity: float) -> float:
    """Return the lowest threshold whose specificity is at least ``specificity``.

    A score >= the threshold is positive. The threshold is one of the scores, or infinite (nothing is positive) if too
    many negatives share the highest score. Among all thresholds with this specificity it has the highest sensitivity.
    Choose it on validation data and apply it to test data with :py:func:`sensitivity_specificity`.

    Args:
        label: labels (B,) of 0 and 1.
        score: scores (B,).
        specificity: minimum specificity in [0, 1].

    Returns:
        The threshold.

    Raises:
        ValueError: if labels are not 0 and 1 with both occurring, scores are not finite or differ in number, or the
            specificity is not in [0, 1].

    Example:
        >>> threshold_at_specificity([0, 0, 1, 1], [0.1, 0.4, 0.3, 0.8], specificity=0.5)
        0.3
    """
    thresholds, _, reached = _curve(label, score)
    return float(thresholds[_reaches(reached, "specificity", specificity)].min())


def threshold_at_sensitivity(label: Sequence[int], score: Sequence[float], sensitivity: float) -> float:
    """Return the highest threshold whose sensitivity is at least ``sensitivity``.

    A score >= the threshold is positive. The threshold is one of the scores (infinite for a sensitivity of 0). Among
    all thresholds with this sensitivity it has the highest specificity. Choose it on validation data and apply it to
    test data with :py:func:`sensitivity_specificity`.

    Args:
        label: labels (B,) of 0 and 1.
        score: scores (B,).
        sensitivity: minimum sensitivity in [0, 1].

    Returns:
        The threshold.

    Raises:
        ValueError: if labels are not 0 and 1 with both occurring, scores are not finite or differ in number, or the
            sensitivity is not in [0, 1].

    Example:
        >>> threshold_at_sensitivity([0, 0, 1, 1], [0.1, 0.4, 0.3, 0.8], sensitivity=1.0)
        0.3
    """
    thresholds, reached, _ = _curve(label, score)
    return float(thresholds[_reaches(reached, "sensitivity", sensitivity)].max())


def threshold_at_youden(label: Sequence[int], score: Sequence[float]) -> float:
    """Return the threshold with the highest sum of sensitivity and specificity (Youden's index).

    A score >= the threshold is positive. The threshold lies in the middle between the two scores that it separates, so
    that it keeps as far from both classes as the data allow; of several with the same sum, it is the one between the
    scores that are farthest apart. If no two scores separate the classes better than chance, it is the lowest score.
    Choose it on validation data and apply it to test data with :py:func:`sensitivity_specificity`.

    Args:
        label: labels (B,) of 0 and 1.
        score: scores (B,).

    Returns:
        The threshold.

    Raises:
        ValueError: if labels are not 0 and 1 with both occurring, or scores are not finite or differ in number.

    References:
        Youden, "Index for Rating Diagnostic Tests", Cancer 3(1), 1950

    Example:
        >>> threshold_at_youden([0, 0, 1, 1], [0.1, 0.2, 0.4, 0.8])
        0.3...
    """
    thresholds, sensitivity, specificity = _curve(label, score)
    index = np.round(sensitivity + specificity, 9)[:-1]  # equal sums stay equal; the last threshold is infinite
    if index.max() <= 1:
        return float(thresholds[0])
    best = np.flatnonzero(index == index.max())
    low, high = thresholds[best - 1], thresholds[best]  # the first has the sum 1, so that it is not among the best
    widest = (high - low).argmax()
    middle = low[widest] + (high[widest] - low[widest]) / 2
    return float(middle if middle > low[widest] else high[widest])  # neighboring numbers have no middle


def sensitivity_specificity(label: Sequence[int], score: Sequence[float], threshold: float) -> dict[str, float]:
    """Compute sensitivity and specificity of a threshold, where a score >= ``threshold`` is positive.

    Args:
        label: labels (B,) of 0 and 1.
        score: scores (B,).
        threshold: the threshold.

    Returns:
        ``sensitivity`` and ``specificity``; NaN if their class does not occur.

    Raises:
        ValueError: if labels are not 0 and 1, scores are not finite or differ in number, or the threshold is NaN.

    Example:
        >>> sensitivity_specificity([0, 0, 1, 1], [0.1, 0.4, 0.3, 0.8], threshold=0.4)
        {'sensitivity': 0.5, 'specificity': 0.5}
    """
    y, s = _binary(label, score)
    if np.isnan(threshold):
        raise ValueError(f"`threshold` must be a number, got {threshold}.")
    positive = s >= threshold
    return {
        "sensitivity": float(positive[y].mean()) if y.any() else float("nan"),
        "specificity": float((~positive[~y]).mean()) if not y.all() else float("nan"),
    }


def _curve(label: Sequence[int], score: Sequence[float]) -> tuple[np.ndarray[Any, Any], ...]:
    """Return ascending thresholds, the infinite one last, with the sensitivity and specificity of each."""
    y, s = _binary(label, score)
    if y.all() or not y.any():
        raise ValueError(f"`label` must have both 0 and 1 to choose a threshold, got {len(y)} times {int(y.all())}.")
    thresholds = np.append(np.unique(s), np.inf)
    # number of positives and of negatives below each threshold
    false_negatives, true_negatives = (np.searchsorted(np.sort(s[group]), thresholds) for group in (y, ~y))
    return thresholds, (y.sum() - false_negatives) / y.sum(), true_negatives / (~y).sum()


def _reaches(values: np.ndarray[Any, Any], name: str, minimum: float) -> np.ndarray[Any, Any]:
    if not 0 <= minimum <= 1:
        raise ValueError(f"`{name}` must be in [0, 1], got {minimum}.")
    return np.asarray(values >= minimum - 1e-9)  # with tolerance, so that 9/10 reaches 1 - 0.1


def _binary(label: Sequence[int], score: Sequence[float]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    y, s = np.asarray(label), np.asarray(score, dtype=float)
    if y.ndim != 1 or not len(y) or not np.isin(y, (0, 1)).all():
        raise ValueError(f"`label` must be (B,) of 0 and 1, got {y}.")
    if s.shape != y.shape or not np.isfinite(s).all():
        raise ValueError(f"`score` must be {len(y)} finite numbers, one per label, got {s}.")
    return y == 1, s
