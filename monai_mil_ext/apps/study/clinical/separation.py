"""Separation: variables that explain some outcomes without an error, so that their effect has no finite estimate."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.utils import optional_dependency

__all__ = ["separating_direction"]

linprog = optional_dependency("", "scipy.optimize", "linprog")
sparse = optional_dependency("", "scipy.sparse")
Array = NDArray[np.float64]
TOLERANCE = 1e-7


def separating_direction(x: Array, truth: NDArray[Any]) -> Array | None:
    r"""Find a direction along which the likelihood of a logistic or Cox regression never falls and somewhere rises.

    The maximum-likelihood estimate is finite only if there is none (Albert and Anderson 1984). It is found by a linear
    program (Konis 2007): :math:`\beta` with bounds of 1 that maximizes the sum of all
    :math:`s_i x_i^\top \beta \geq 0`, where s is 1 for the positive class and -1 for the other; for a Cox regression,
    of all :math:`(x_i - x_j)^\top \beta \geq 0` with j at risk at the event of i.

    Args:
        x: columns (n, P), without an intercept.
        truth: 0 and 1 (n,), or time and event (n, 2).

    Returns:
        The direction (P,), zero in columns that do not take part, or None.

    References:
        Albert and Anderson, On the existence of maximum likelihood estimates in logistic regression models,
        Biometrika 71 (1984). Konis, Linear programming algorithms for detecting separated data in binary logistic
        regression models, University of Oxford (2007).

    Example:
        >>> x = np.array([[1.0, 3], [2, 1], [3, 2], [4, 4]])
        >>> separating_direction(x, np.array([0, 0, 1, 1])) is None
        False
        >>> separating_direction(x[:, 1:], np.array([0, 1, 0, 1])) is None
        True
    """
    z = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)
    gain, rows = _cox_program(z, truth) if truth.ndim == 2 else _logistic_program(z, truth)
    count, free = x.shape[1], rows.shape[1] - x.shape[1]
    bounds = [(-1.0, 1.0)] * count + [(None, None)] * free
    gain = np.concatenate([gain, np.zeros(rows.shape[1] - len(gain))])
    found = linprog(-gain, A_ub=rows, b_ub=np.zeros(rows.shape[0]), bounds=bounds, method="highs")
    if not found.success or -found.fun <= TOLERANCE * len(x):
        return None
    return np.where(np.abs(found.x[:count]) > TOLERANCE, found.x[:count], 0.0)


def _logistic_program(z: Array, truth: NDArray[Any]) -> tuple[Array, Any]:
    """Return gain and rows of the program for P columns and an intercept."""
    signed = np.where(truth == 1, 1.0, -1.0)[:, None] * np.column_stack([z, np.ones(len(z))])
    return signed.sum(axis=0), -signed


def _cox_program(z: Array, truth: Array) -> tuple[Array, Any]:
    """Return gain and rows of the program for P columns and, at each time, the highest score of all at risk."""
    order = np.argsort(-truth[:, 0], kind="stable")
    z, times, events = z[order], truth[order, 0], truth[order, 1] == 1
    last = np.searchsorted(-times, -times, side="right") - 1  # all cases of the same time are still at risk
    totals, n = z.cumsum(axis=0), len(z)
    gain = ((last[events, None] + 1) * z[events] - totals[last[events]]).sum(axis=0)
    step = sparse.csr_matrix(sparse.eye(n))
    below = sparse.hstack([sparse.csr_matrix(z), -step])  # a score is at most the running maximum
    grows = sparse.hstack([sparse.csr_matrix((n - 1, z.shape[1])), (step[:-1] - step[1:])])
    top = sparse.hstack([sparse.csr_matrix(-z[events]), step[last[events]]])  # that of an event is at least as high
    return gain, sparse.vstack([below, grows, top]).tocsr()
