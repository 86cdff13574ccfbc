"""Weighted ranking metrics of cases, computed for many resamples at once and only within folds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "auroc",
    "average_precision_parts",
    "c_index",
    "grouped_weights",
    "mean_of_finite",
    "mean_within_folds",
    "spearman",
    "tie_groups",
]

Array = NDArray[Any]
Parts = tuple[Array, Array]  # numerator and denominator of each resample
CHUNK = 1024


def mean_within_folds(parts: Callable[[Array], Parts], repeat: Array, fold: Array) -> Array:
    """Add numerators and denominators of all folds of a repeat, and return the mean of the ratio over repeats.

    Predictions of different folds come from different networks, so they are never ranked together.

    Args:
        parts: function of a mask (R,) of rows that returns the numerator (S,) and the denominator (S,).
        repeat: repeat of each of the R rows.
        fold: fold of each row.

    Returns:
        The metric (S,) of each resample; NaN where no fold has a value.

    Example:
        >>> score, positive, fold = np.array([0.1, 0.9, 0.2, 0.3]), np.array([0, 1, 1, 0]), np.array([0, 0, 1, 1])
        >>> mean_within_folds(lambda rows: auroc(score[rows], positive[rows], np.ones((1, 2))), 0 * fold, fold)
        array([0.5])
    """
    ratios = []
    for number in np.unique(repeat):
        of_folds = [parts((repeat == number) & (fold == k)) for k in np.unique(fold[repeat == number])]
        numerator, denominator = np.sum(of_folds, axis=0)
        ratios.append(np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0))
    return mean_of_finite(np.array(ratios))


def mean_of_finite(values: Array) -> Array:
    """Return the mean (S,) of the finite values over the first axis, NaN without any.

    Example:
        >>> mean_of_finite(np.array([[1.0, np.nan], [2.0, np.nan]]))
        array([1.5, nan])
    """
    finite = np.isfinite(values)
    total, count = np.where(finite, values, 0).sum(axis=0), finite.sum(axis=0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def tie_groups(score: Array, descending: bool = False) -> Parts:
    """Return the order of the scores, and where in it each group of equal scores starts.

    Example:
        >>> tie_groups(np.array([0.5, 0.1, 0.5]))
        (array([1, 0, 2]), array([0, 1]))
    """
    order = np.argsort(-score if descending else score, kind="stable")
    ordered = score[order]
    return order, np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: len(score)])


def grouped_weights(weights: Array, positive: Array, order: Array, starts: Array) -> Parts:
    """Return the weights (S, G) of positives and of negatives in each of G groups of equal scores.

    Example:
        >>> grouped_weights(np.ones((1, 3)), np.array([1, 0, 1]), *tie_groups(np.array([0.5, 0.1, 0.5])))
        (array([[0., 2.]]), array([[1., 0.]]))
    """
    ordered, y = weights[:, order], positive[order].astype(bool)
    pos, neg = ordered * y, ordered * ~y
    if len(starts) == len(order):  # no ties
        return pos, neg
    return np.add.reduceat(pos, starts, axis=1), np.add.reduceat(neg, starts, axis=1)


def auroc(score: Array, positive: Array, weights: Array) -> Parts:
    """Count the concordant pairs, ties as half, and all pairs of a positive and a negative case.

    Args:
        score: scores (N,).
        positive: whether each case is positive (N,).
        weights: number of copies (S, N) of each case in each resample.

    Returns:
        Concordant pairs (S,) and pairs (S,); their ratio is the area under the ROC curve.

    Example:
        >>> auroc(np.array([0.1, 0.4, 0.4]), np.array([0, 0, 1]), np.ones((1, 3)))
        (array([1.5]), array([2.]))
    """
    pos, neg = grouped_weights(weights, positive, *tie_groups(score))
    below = np.cumsum(neg, axis=1) - neg
    return (pos * (below + neg / 2)).sum(axis=1), pos.sum(axis=1) * neg.sum(axis=1)


def average_precision_parts(score: Array, positive: Array, weights: Array) -> Parts:
    """Add the precision at the score of each positive case, and count these cases.

    Args:
        score: scores (N,).
        positive: whether each case is positive (N,).
        weights: number of copies (S, N) of each case in each resample.

    Returns:
        Sum of precisions (S,) and number of positives (S,); their ratio is the average precision. Both are zero
        without negative cases, where it says nothing.

    Example:
        >>> average_precision_parts(np.array([0.1, 0.4, 0.6]), np.array([1, 0, 1]), np.ones((1, 3)))
        (array([1.66666667]), array([2.]))
    """
    pos, neg = grouped_weights(weights, positive, *tie_groups(score, descending=True))
    predicted = np.cumsum(pos + neg, axis=1)
    precision = np.divide(np.cumsum(pos, axis=1), predicted, out=np.zeros_like(predicted), where=predicted > 0)
    defined = neg.sum(axis=1) > 0
    return (pos * precision).sum(axis=1) * defined, pos.sum(axis=1) * defined


def c_index(risk: Array, time: Array, event: Array, weights: Array) -> Parts:
    """Count the concordant pairs, ties as half, and the comparable pairs of Harrell's C-index.

    See :py:func:`monai_mil_ext.metrics.concordance_index` for the pairs that are comparable.

    Args:
        risk: risks (N,), higher for an earlier event.
        time: times (N,) of the event or of censoring.
        event: whether the event was observed (N,).
        weights: number of copies (S, N) of each case in each resample.

    Returns:
        Concordant pairs (S,) and comparable pairs (S,).

    Example:
        >>> c_index(np.array([2.0, 1.0]), np.array([1.0, 3.0]), np.array([1, 0]), np.ones((1, 2)))
        (array([1.]), array([1.]))
    """
    concordant, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    copies = weights.astype(np.float32)  # counts and halves of counts are exact
    for rows in _chunks(np.flatnonzero(event)):
        later = (time > time[rows, None]) | ((time == time[rows, None]) & (event == 0))
        lower = (risk < risk[rows, None]) + 0.5 * (risk == risk[rows, None])
        concordant += (weights[:, rows] * (copies @ (later * lower).T.astype(np.float32))).sum(axis=1)
        pairs += (weights[:, rows] * (copies @ later.T.astype(np.float32))).sum(axis=1)
    return concordant, pairs


def _chunks(rows: Array) -> Iterator[Array]:
    """Yield the rows in chunks, so that memory stays linear in the number of cases."""
    yield from (rows[i : i + CHUNK] for i in range(0, len(rows), CHUNK))


def spearman(x: Array, y: Array, weights: Array) -> Parts:
    """Compute Spearman's rank correlation, times the number of cases, and this number.

    Args:
        x: values (N,).
        y: values (N,).
        weights: number of copies (S, N) of each case in each resample.

    Returns:
        Correlation times number of cases (S,), and number of cases (S,); both are zero where one of the two is
        constant.

    Example:
        >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 9.0]), np.ones((1, 3)))
        (array([3.]), array([3.]))
    """
    if not len(x):
        return np.zeros(len(weights)), np.zeros(len(weights))
    total = weights.sum(axis=1)
    a, b = (_centered_ranks(v, weights, total) for v in (x, y))
    norm = np.sqrt((weights * a * a).sum(axis=1) * (weights * b * b).sum(axis=1))
    defined = norm > 1e-9 * np.maximum(total, 1)
    correlation = np.divide((weights * a * b).sum(axis=1), norm, out=np.zeros(len(total)), where=defined)
    return correlation * total, total * defined


def _centered_ranks(values: Array, weights: Array, total: Array) -> Array:
    """Return the mean rank (S, N) of each value among all copies, minus the mean of all ranks."""
    order, starts = tie_groups(values)
    copies = np.add.reduceat(weights[:, order], starts, axis=1)
    ranks = np.cumsum(copies, axis=1) - copies / 2
    group = np.empty(len(values), dtype=int)
    group[order] = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(values)]))
    return np.asarray(ranks[:, group] - total[:, None] / 2)
