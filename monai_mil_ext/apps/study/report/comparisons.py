"""Paired comparisons of the methods of a study."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

import numpy as np

from monai_mil_ext.apps.study.predictions import Predictions
from monai_mil_ext.apps.study.tasks import Task

from .case_sample import CaseSample
from .intervals import difference_estimate, holm
from .task_values import main_measure, main_metric

__all__ = ["compare_methods"]


def compare_methods(
    methods: Mapping[str, Predictions],
    task: Task,
    num_samples: int = 1000,
    seed: int = 0,
    pairs: Iterable[tuple[str, str]] | None = None,
) -> list[dict[str, Any]]:
    """Compare pairs of methods by the main metric, on the same patients in each resample.

    A pair is compared on the cases for which both have finite predictions.

    Args:
        methods: predictions of each method.
        task: the task.
        num_samples: number of bootstrap samples.
        seed: random seed of the bootstrap.
        pairs: pairs of names to compare; by default all. Each further pair makes the correction stricter.

    Returns:
        For each pair ``a``, ``b``, ``metric``, ``difference`` (a - b) with its 95 % interval ``low`` and ``high``,
        ``p`` (two-sided), ``p_holm`` (corrected over all pairs by Holm's method) and ``num_cases``.

    Raises:
        ValueError: if two methods have different labels for the same case.

    Example:
        >>> rows = Predictions(list("abcd"), list("abcd"), [""] * 4, np.zeros(4, int), np.zeros(4, int), ["test"] * 4,
        ...                    np.array([0.0, 1, 2, 3]), np.array([[0.1], [0.8], [2.5], [2.9]]))
        >>> (pair,) = compare_methods({"ABMIL": rows, "QGMIL": rows}, Task("regression"), num_samples=100)
        >>> pair["difference"], pair["p_holm"], pair["num_cases"]
        (0.0, 1.0, 4)
    """
    metric = main_metric(task)
    rows = [
        {"a": a, "b": b, "metric": metric, **_compare(methods[a], methods[b], task, num_samples, seed)}
        for a, b in (combinations(methods, 2) if pairs is None else pairs)
    ]
    for row, corrected in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = corrected
    return rows


def _compare(a: Predictions, b: Predictions, task: Task, num_samples: int, seed: int) -> dict[str, Any]:
    """Compare two methods on the cases that both predict."""
    parts = _common(a, b)
    samples = [main_measure(CaseSample.draw(part, num_samples, seed), task).samples for part in parts]
    difference = difference_estimate(samples[0] - samples[1], len(set(parts[0].patient)))
    return {**difference, "num_cases": len(set(parts[0].case_id))}


def _common(a: Predictions, b: Predictions) -> tuple[Predictions, Predictions]:
    """Return the test rows of both for the same cases, in the same order."""
    tests = [CaseSample.draw(predictions, 1, 0).rows for predictions in (a, b)]
    places = [
        {key: i for i, key in enumerate(zip(t.repeat.tolist(), t.fold.tolist(), t.case_id, strict=True))} for t in tests
    ]
    keys = sorted(places[0].keys() & places[1].keys())
    one, two = (
        t.select(np.array([place[key] for key in keys], dtype=int)) for t, place in zip(tests, places, strict=True)
    )
    if not np.array_equal(one.truth, two.truth, equal_nan=one.truth.dtype.kind == "f"):
        raise ValueError("`methods` must have the same labels for the same cases, got different ones.")
    return one, two
