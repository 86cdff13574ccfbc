"""Thresholds frozen on validation data, and what they give on other data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["sensitivity_specificity", "threshold_at_sensitivity", "threshold_at_specificity"]


def threshold_at_specificity(label: Sequence[int], score: Sequence[float], specificity: float) -> float:
    """Lowest threshold whose specificity on labels (B,) of 0 and 1 and scores (B,) is at least ``specificity``.

    A score >= the threshold is positive. The threshold is one of the scores, or infinite when even the highest score
    is shared by too many negatives: nothing is positive then. Of all that reach the specificity it has the highest
    sensitivity. Freeze it on validation data and pass it to :py:func:`sensitivity_specificity` with the test data.

    Raises:
        ValueError: when labels are not 0 and 1, both there, scores are not as many finite ones, or the specificity is
            not in [0, 1].

    Example:
        >>> threshold_at_specificity([0, 0, 1, 1], [0.1, 0.4, 0.3, 0.8], specificity=0.5)
        0.3
    """
    thresholds, _, reached = _curve(label, score)
    return float(thresholds[_reaches(reached, "specificity", specificity)].min())


def threshold_at_sensitivity(label: Sequence[int], score: Sequence[float], sensitivity: float) -> float:
    """Highest threshold whose sensitivity on labels (B,) of 0 and 1 and scores (B,) is at least ``sensitivity``.

    A score >= the threshold is positive. The threshold is one of the scores (infinite for a sensitivity of 0). Of all
    that reach the sensitivity it has the highest specificity. Freeze it on validation data and pass it to
    :py:func:`sensitivity_specificity` with the test data.

    Raises:
        ValueError: when labels are not 0 and 1, both there, scores are not as many finite ones, or the sensitivity is
            not in [0, 1].

    Example:
        >>> threshold_at_sensitivity([0, 0, 1, 1], [0.1, 0.4, 0.3, 0.8], sensitivity=1.0)
        0.3
    """
    thresholds, reached, _ = _curve(label, score)
    return float(thresholds[_reaches(reached, "sensitivity", sensitivity)].max())


def sensitivity_specificity(label: Sequence[int], score: Sequence[float], threshold: float) -> dict[str, float]:
    """Sensitivity and specificity of labels (B,) of 0 and 1 when a score >= ``threshold`` is positive.

    A class that isn't there has no value: NaN.

    Raises:
        ValueError: when labels are not 0 and 1, scores are not as many finite ones, or the threshold is NaN.

    Example:
        >>> sensitivity_specificity([0, 0, 1, 1], [0.1, 0.4, 0.3, 0.8], threshold=0.4)
        {'sensitivity': 0.5, 'specificity': 0.5}
    """
    y, s = _binary(label, score)
    if np.isnan(threshold):
        raise ValueError(f"`threshold` must be a number, got {threshold}.")
    found = s >= threshold
    return {
        "sensitivity": float(found[y].mean()) if y.any() else float("nan"),
        "specificity": float((~found[~y]).mean()) if not y.all() else float("nan"),
    }


def _curve(label: Sequence[int], score: Sequence[float]) -> tuple[np.ndarray[Any, Any], ...]:
    """Thresholds in ascending order, the infinite one last, with the sensitivity and specificity of each."""
    y, s = _binary(label, score)
    if y.all() or not y.any():
        raise ValueError(f"`label` must have both 0 and 1 to freeze a threshold, got {len(y)} times {int(y.all())}.")
    thresholds = np.append(np.unique(s), np.inf)
    missed, passed = (np.searchsorted(np.sort(s[of]), thresholds) for of in (y, ~y))  # how many are below each
    return thresholds, (y.sum() - missed) / y.sum(), passed / (~y).sum()


def _reaches(values: np.ndarray[Any, Any], name: str, least: float) -> np.ndarray[Any, Any]:
    if not 0 <= least <= 1:
        raise ValueError(f"`{name}` must be in [0, 1], got {least}.")
    return np.asarray(values >= least - 1e-9)  # 9 of 10 reach a share computed as 1 - 0.1


def _binary(label: Sequence[int], score: Sequence[float]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    y, s = np.asarray(label), np.asarray(score, dtype=float)
    if y.ndim != 1 or not len(y) or not np.isin(y, (0, 1)).all():
        raise ValueError(f"`label` must be (B,) of 0 and 1, got {y}.")
    if s.shape != y.shape or not np.isfinite(s).all():
        raise ValueError(f"`score` must be {len(y)} finite numbers, one a label, got {s}.")
    return y == 1, s
