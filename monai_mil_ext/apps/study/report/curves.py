"""ROC, precision-recall and calibration curves of a method, with bands by the bootstrap."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.metrics.bootstrap import percentile_interval
from monai_mil_ext.utils import optional_dependency

from .case_sample import CaseSample
from .intervals import as_estimate, number, wilson_interval
from .rankings import grouped_weights, tie_groups

__all__ = ["calibration_curve", "calibration_line", "score_curves"]

expit = optional_dependency("", "scipy.special", "expit")
Array = NDArray[Any]
GRID = np.linspace(0, 1, 101)
ZERO = np.zeros(1)
Curve = dict[str, list[float | None]]
NUM_BINS = 10
MIN_PER_BIN = 5
STEPS = 30  # of Newton's method
LARGEST = 50.0  # coefficient of a calibration that does not converge


def score_curves(sample: CaseSample, positive: Array, score: Array) -> tuple[Curve, Curve]:
    """Compute the ROC curve on a grid of 1 - specificity, and the precision on a grid of recall.

    The ROC curve is averaged over folds by their numbers of pairs, so that its area is the AUROC over the pairs of the
    same fold, up to the grid; the precision by their numbers of positive cases. Between two thresholds precision is
    that of the next one which reaches the recall, not interpolated. Bands are the central 95 % of the resamples at each
    point.

    Args:
        sample: the cases.
        positive: whether each case is positive (R,).
        score: scores (R,).

    Returns:
        ``fpr``, ``tpr``, ``low`` and ``high``; and ``recall``, ``precision``, ``low`` and ``high``: lists of equal
        length, empty if no fold has cases of both classes.
    """
    totals = np.zeros((2, len(sample.weights), len(GRID)))
    sizes = np.zeros((2, len(sample.weights), 1))
    for fold in np.unique(sample.rows.fold):
        mask = sample.rows.fold == fold
        groups = grouped_weights(sample.weights[:, mask], positive[mask], *tie_groups(score[mask], descending=True))
        true, false = (np.cumsum(weights, axis=1) for weights in groups)
        defined = np.flatnonzero((true[:, -1] > 0) & (false[:, -1] > 0))
        for i in defined:
            totals[0, i] += true[i, -1] * false[i, -1] * _sensitivity(true[i], false[i])
            totals[1, i] += true[i, -1] * _precision(true[i], false[i])
        sizes[0, defined, 0] += true[defined, -1] * false[defined, -1]
        sizes[1, defined, 0] += true[defined, -1]
    means = np.divide(totals, sizes, out=np.full(totals.shape, np.nan), where=sizes > 0)
    banded = sample.num_patients > 1
    return _as_curve(("fpr", "tpr"), means[0], banded), _as_curve(("recall", "precision"), means[1], banded)


def _as_curve(names: tuple[str, str], values: Array, banded: bool) -> Curve:
    """Return the points of the sample and the band of the resamples."""
    if np.isnan(values[0]).any():
        return {name: [] for name in (*names, "low", "high")}
    band = [percentile_interval(column) if banded else (np.nan, np.nan) for column in values[1:].T]
    return {
        names[0]: GRID.tolist(),
        names[1]: values[0].tolist(),
        "low": [number(low) for low, _ in band],
        "high": [number(high) for _, high in band],
    }


def _sensitivity(tp: Array, fp: Array) -> Array:
    """Return the sensitivity on the grid of 1 - specificity; the highest of those with the same specificity."""
    return np.interp(GRID, np.concatenate([ZERO, fp / fp[-1]]), np.concatenate([ZERO, tp / tp[-1]]))


def _precision(tp: Array, fp: Array) -> Array:
    """Return the precision on the grid of recall, of the first threshold that reaches it."""
    reached = np.searchsorted(tp, (GRID - 1e-12) * tp[-1])
    reached = np.maximum(reached, np.searchsorted(tp + fp, 0, side="right"))  # the first threshold with a case
    return np.asarray(tp[reached] / (tp + fp)[reached])


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
    """Fit intercept and slope (2, 1 + S) of a logistic regression in each resample, from those of the sample."""
    first = _newton(x, y, weights[:1], np.zeros(2))
    if not np.isfinite(first).all():
        return np.full((2, len(weights)), np.nan)
    return np.concatenate([first, _newton(x, y, weights[1:], first[:, 0])], axis=1)


def _newton(x: Array, y: Array, weights: Array, start: Array) -> Array:
    """Fit intercept and slope (2, S) by Newton's method; NaN if it does not converge."""
    a, b = (np.full(len(weights), value) for value in start)
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
