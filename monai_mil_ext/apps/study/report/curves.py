"""ROC, precision-recall and calibration curves of a method, with bands by the bootstrap."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.metrics.bootstrap import percentile_interval
from monai_mil_ext.utils import optional_dependency

from .case_sample import CaseSample
from .intervals import as_estimate, number, wilson_interval
from .rankings import tie_groups

__all__ = ["calibration_curve", "calibration_line", "precision_recall_curve", "roc_curve"]

expit = optional_dependency("", "scipy.special", "expit")
Array = NDArray[Any]
GRID = np.linspace(0, 1, 101)
NUM_BINS = 10
MIN_PER_BIN = 5
STEPS = 30  # of Newton's method
LARGEST = 50.0  # coefficient of a calibration that does not converge


def roc_curve(sample: CaseSample, positive: Array, score: Array) -> dict[str, list[float | None]]:
    """Compute the ROC curve on a grid of 1 - specificity, averaged over folds by their numbers of pairs.

    Its area is the AUROC over the pairs of the same fold, up to the grid. The band is the central 95 % of the
    resamples at each point.

    Args:
        sample: the cases.
        positive: whether each case is positive (R,).
        score: scores (R,).

    Returns:
        ``fpr``, ``tpr``, ``low`` and ``high``, lists of equal length; empty if no fold has cases of both classes.
    """
    return _curve(sample, positive, score, _roc, ("fpr", "tpr"))


def precision_recall_curve(sample: CaseSample, positive: Array, score: Array) -> dict[str, list[float | None]]:
    """Compute the precision on a grid of recall, averaged over folds by their numbers of positive cases.

    Between two thresholds precision is that of the next one which reaches the recall, not interpolated.

    Args:
        sample: the cases.
        positive: whether each case is positive (R,).
        score: scores (R,).

    Returns:
        ``recall``, ``precision``, ``low`` and ``high``, as in :py:func:`roc_curve`.
    """
    return _curve(sample, positive, score, _precision_recall, ("recall", "precision"))


def _curve(
    sample: CaseSample, positive: Array, score: Array, points: Any, names: tuple[str, str]
) -> dict[str, list[float | None]]:
    total = np.zeros((len(sample.weights), len(GRID)))
    size = np.zeros(len(sample.weights))
    for fold in np.unique(sample.rows.fold):
        mask = sample.rows.fold == fold
        order, starts = tie_groups(score[mask], descending=True)
        weights, y = sample.weights[:, mask][:, order], positive[mask][order].astype(bool)
        true, false = (np.cumsum(np.add.reduceat(weights * c, starts, axis=1), axis=1) for c in (y, ~y))
        for i, (tp, fp) in enumerate(zip(true, false, strict=True)):
            if tp[-1] and fp[-1]:
                share = points(tp, fp)
                factor = tp[-1] * fp[-1] if points is _roc else tp[-1]
                total[i] += factor * share
                size[i] += factor
    if not len(size) or not size[0]:
        return {name: [] for name in (*names, "low", "high")}
    mean = np.divide(total, size[:, None], out=np.full(total.shape, np.nan), where=size[:, None] > 0)
    band = [percentile_interval(column) for column in mean[1:].T.tolist()] if sample.num_patients > 1 else []
    return {
        names[0]: GRID.tolist(),
        names[1]: mean[0].tolist(),
        "low": [number(low) for low, _ in band] or [None] * len(GRID),
        "high": [number(high) for _, high in band] or [None] * len(GRID),
    }


def _roc(tp: Array, fp: Array) -> Array:
    """Return the sensitivity on the grid, the mean of both ends where the curve is vertical at a point of it."""
    x, y = np.r_[0, fp / fp[-1]], np.r_[0, tp / tp[-1]]
    return np.interp(GRID, x, y)


def _precision_recall(tp: Array, fp: Array) -> Array:
    """Return the precision on the grid of recall."""
    drawn = np.r_[True, np.diff(tp + fp) > 0] & (tp + fp > 0)
    recall, precision = tp[drawn] / tp[-1], tp[drawn] / (tp + fp)[drawn]
    return np.asarray(precision[np.searchsorted(recall, GRID - 1e-12)])


def calibration_curve(sample: CaseSample, positive: Array, probability: Array) -> list[dict[str, float | None]]:
    """Compare predicted probabilities with observed shares, in bins of equal numbers of cases.

    Args:
        sample: the cases.
        positive: 1 for positive cases (R,), else 0.
        probability: predicted probability (R,).

    Returns:
        For each of at most ten bins ``predicted`` (mean probability), ``observed`` (share of positives), ``low`` and
        ``high`` (Wilson's 95 % interval of the number of patients in the bin) and ``count`` (cases).
    """
    order, starts = tie_groups(probability) if len(probability) else (np.array([], int), np.array([], int))
    num_bins = max(1, min(NUM_BINS, len(probability) // MIN_PER_BIN))
    sizes = np.diff(np.r_[starts, len(probability)])
    bins = np.repeat(((starts + (sizes - 1) / 2) * num_bins // max(len(probability), 1)).astype(int), sizes)
    curve: list[dict[str, float | None]] = []
    for k in np.unique(bins):  # equal probabilities share a bin
        rows = order[bins == k]
        observed = float(positive[rows].mean())
        low, high = wilson_interval(observed, len({sample.rows.patient[i] for i in rows}))
        predicted = float(probability[rows].mean())
        curve.append({"predicted": predicted, "observed": observed, "low": low, "high": high, "count": len(rows)})
    return curve


def calibration_line(sample: CaseSample, positive: Array, probability: Array) -> dict[str, dict[str, float | None]]:
    """Fit the logistic recalibration ``logit P(positive) = intercept + slope * logit(probability)``.

    Args:
        sample: the cases.
        positive: 1 for positive cases (R,), else 0.
        probability: predicted probability (R,).

    Returns:
        ``slope`` (1: calibrated, less: too confident) and ``intercept`` (0: calibrated), with intervals. Undefined if
        the probabilities separate the classes or are constant.

    References:
        Cox, "Two Further Applications of a Model for Binary Regression", Biometrika 45, 1958
    """
    clipped = np.clip(probability, 1e-6, 1 - 1e-6)
    fitted = _logistic(np.log(clipped / (1 - clipped)), positive, sample.weights)
    names = {"slope": fitted[1], "intercept": fitted[0]}
    return {name: as_estimate(values, sample.num_patients, "free") for name, values in names.items()}


def _logistic(x: Array, y: Array, weights: Array) -> Array:
    """Fit intercept and slope (2, S) of a logistic regression in each resample by Newton's method."""
    a, b = np.zeros(len(weights)), np.zeros(len(weights))
    step = np.full(len(weights), np.inf)
    active = np.arange(len(weights))
    for _ in range(STEPS):
        w = weights[active]
        p = expit(a[active, None] + b[active, None] * x)
        residual, curvature = w * (y - p), w * p * (1 - p)
        g0, g1 = residual.sum(axis=1), residual @ x
        h0, h1, h2 = curvature.sum(axis=1), curvature @ x, curvature @ (x * x)
        determinant = h0 * h2 - h1 * h1
        solvable = determinant > 1e-10
        inverse = np.divide(1, determinant, out=np.full(len(determinant), np.nan), where=solvable)
        da, db = (h2 * g0 - h1 * g1) * inverse, (h0 * g1 - h1 * g0) * inverse
        a[active], b[active] = a[active] + da, b[active] + db
        step[active] = np.abs(da) + np.abs(db)
        active = active[(step[active] > 1e-8) & (np.abs(b[active]) < LARGEST) & solvable]
        if not len(active):
            break
    bad = ~((step <= 1e-6) & (np.abs(b) < LARGEST))
    return np.where(bad, np.nan, np.stack([a, b]))
