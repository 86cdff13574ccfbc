"""Coverage and size of sets of instances with a guarantee, over the folds of a study."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from monai_mil_ext.metrics.conformal.conformal_instances import bag_levels, quantile_index

from .case_sample import CaseSample
from .intervals import as_estimate

__all__ = ["SET_COLUMNS", "set_columns", "set_summary"]

RANK, SIZE = SET_COLUMNS = ("first_positive_rank", "bag_size")
ALPHAS = (0.1, 0.05)
MAX_SHARE = 0.5  # of a bag; larger sets are not shown
Array = NDArray[Any]


def set_columns(attention: Tensor, labels: Tensor) -> dict[str, float]:
    """Return at which rank the first positive instance of a bag comes, and the number of instances.

    Args:
        attention: attention (N,) of the instances; of equal ones, those that are not positive come first.
        labels: instance labels (N,).

    Returns:
        ``first_positive_rank``, NaN without a positive instance, and ``bag_size``.

    Example:
        >>> import torch
        >>> set_columns(torch.tensor([0.2, 0.5, 0.3]), torch.tensor([0, 0, 1]))
        {'first_positive_rank': 2.0, 'bag_size': 3.0}
    """
    levels = bag_levels([attention], [labels], "any", "rank")
    return {RANK: levels[0] if levels else math.nan, SIZE: float(len(attention))}


def set_summary(sample: CaseSample, alphas: tuple[float, ...] = ALPHAS) -> list[dict[str, Any]]:
    """Count how often sets of instances include a positive one, and how large they are.

    The sets of a fold are those of :py:class:`monai_mil_ext.metrics.ConformalInstances` by rank, for one positive
    instance, calibrated on the test cases of the other folds of its repeat. These have networks of their own, trained
    in the same way: the values estimate what a calibration of so many patients gives, and calibrate no network.

    Args:
        sample: test cases, with the columns of :py:func:`set_columns`; those without a positive instance don't count.
        alphas: largest probabilities of a wrong set.

    Returns:
        For each alpha ``confidence``, ``num_cases``, ``num_calibration`` (patients, the fewest of a fold),
        ``coverage`` with a 95 % interval by patient, means of ``set_size`` and ``set_share`` of the instances that are
        needed, and ``no_set``, the share of cases that need more than half of their instances, or whose calibration
        has too few patients. Empty without instance labels, or with one fold.
    """
    more = sample.rows.more
    known = np.isfinite(more[RANK]) if RANK in more else np.zeros(len(sample.rows), dtype=bool)
    if len(np.unique(sample.rows.fold[known])) < 2:
        return []
    return [_row(sample, known, alpha) for alpha in alphas]


def _row(sample: CaseSample, known: Array, alpha: float) -> dict[str, Any]:
    ranks, sizes = sample.rows.more[RANK], sample.rows.more[SIZE]
    limits, counts = _limits(sample, known, alpha)
    needed = np.where(known, np.minimum(limits, sizes), np.nan)
    is_large = (limits == np.inf) | (needed > MAX_SHARE * sizes)
    columns = {
        "coverage": (ranks <= limits, "share"),
        "set_size": (needed, "error"),
        "set_share": (needed / sizes, "share"),
        "no_set": (is_large, "share"),
    }
    patients = sample.count_patients(known)
    values = {
        name: as_estimate(sample.mean(np.where(known, column, np.nan)), patients, scale, patients)
        for name, (column, scale) in columns.items()
    }
    count = {"num_cases": sample.count_cases(known), "num_calibration": min(counts)}
    return {"confidence": 1 - alpha, **count, **values}


def _limits(sample: CaseSample, known: Array, alpha: float) -> tuple[Array, list[int]]:
    """Return the number of instances to show of each row (R,), inf without a guarantee, and the sizes of calibrations.

    The cases of a patient count once, by the largest of their ranks.
    """
    rows, limits, counts = sample.rows, np.full(len(sample.rows), np.inf), []
    for repeat, fold in sorted(set(zip(rows.repeat[known].tolist(), rows.fold[known].tolist(), strict=True))):
        others = known & (rows.repeat == repeat) & (rows.fold != fold)
        largest: dict[str, float] = {}
        for i in np.flatnonzero(others).tolist():
            largest[rows.patient[i]] = max(rows.more[RANK][i], largest.get(rows.patient[i], 0.0))
        levels, index = sorted(largest.values()), quantile_index(len(largest), alpha)
        counts.append(len(levels))
        if index <= len(levels):
            limits[(rows.repeat == repeat) & (rows.fold == fold)] = levels[index - 1]
    return limits, counts
