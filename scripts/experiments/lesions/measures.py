"""Measures of the answers on test scans, over all seeds, with intervals and differences to the center of the scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from monai_mil_ext.metrics import bootstrap_interval, compare_over_seeds

__all__ = ["SLICE_VALUES", "VALUES", "compare_with_center", "macro_f1", "scan_auroc", "statistic", "summarize"]

Row = Mapping[str, Any]
SLICE_VALUES = ("instance_auroc", "instance_ap", "pointing_game")
VALUES = ("bag_auroc", "bag_macro_f1", *SLICE_VALUES, "entropy_ratio")


def scan_auroc(label: NDArray[Any], score: NDArray[Any]) -> float:
    """Compute the AUROC of scores (B,) from the ranks, quickly enough for a bootstrap; a tie counts one half.

    Example:
        >>> scan_auroc(np.array([0, 1, 0, 1]), np.array([0.1, 0.1, 0.2, 0.9]))
        0.625
    """
    positive = label > 0
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return float("nan")
    return float((rankdata(score)[positive].sum() - n * (n + 1) / 2) / (n * m))


def macro_f1(label: NDArray[Any], predicted: NDArray[Any]) -> float:
    """Compute the mean F1 score of both classes.

    Example:
        >>> round(macro_f1(np.array([0, 1, 1]), np.array([0, 0, 1])), 3)
        0.667
    """
    scores = []
    for value in (0, 1):
        truth, guess = label == value, predicted == value
        total = truth.sum() + guess.sum()
        if total:
            scores.append(2 * float((truth & guess).sum()) / float(total))
    return float(np.mean(scores))


def statistic(rows: Sequence[tuple[Any, Row]]) -> dict[str, float]:
    """Return the mean over seeds of all measures of rows with their seeds.

    Bag AUROC and macro F1 (at a probability of 1/2) are of all scans of a seed; they are NaN for answers that do not
    differ. Slice measures are means over the scans with a lesion, the entropy of the attention one over all scans.
    """
    seeds: dict[Any, list[Row]] = {}
    for seed, row in rows:
        seeds.setdefault(seed, []).append(row)
    by_seed = [_of_seed(part) for part in seeds.values()]
    return {name: float(np.mean([values[name] for values in by_seed])) for name in VALUES}


def _of_seed(rows: Sequence[Row]) -> dict[str, float]:
    label, probability = (np.array([row[key] for row in rows]) for key in ("label", "probability"))
    answers = len(set(probability)) > 1
    values = {
        "bag_auroc": scan_auroc(label, probability) if answers else float("nan"),
        "bag_macro_f1": macro_f1(label, probability > 0.5) if answers else float("nan"),
    }
    for name in (*SLICE_VALUES, "entropy_ratio"):
        column = np.array([row.get(name, np.nan) for row in rows])
        values[name] = float(np.nanmean(column)) if np.isfinite(column).any() else float("nan")
    return values


def summarize(rows: Mapping[Any, Sequence[Row]], num_samples: int = 1000) -> dict[str, Any]:
    """Return mean over seeds, 95 % interval by drawing the scans of all seeds again, and the values of each seed.

    Args:
        rows: rows of a method by seed.
        num_samples: number of bootstrap samples.
    """
    flat = _flat(rows)
    seeds = {seed: _defined(statistic(_flat({seed: part}))) for seed, part in rows.items()}
    intervals = bootstrap_interval(flat, statistic, num_samples=num_samples)
    return {
        "values": _defined(statistic(flat)),
        "interval_95": {name: _ends(ends) for name, ends in intervals.items()},
        "seeds": {name: [values[name] for values in seeds.values()] for name in VALUES},
        "num_scans": len(flat),
        "num_positive": sum(row["label"] for _, row in flat),
    }


def compare_with_center(
    rows: Mapping[Any, Sequence[Row]], center: Mapping[Any, Sequence[Row]], num_samples: int = 1000
) -> dict[str, Any] | None:
    """Return the paired differences of slice measures to those of the center; None if a method ranks no slices."""
    if not any("instance_auroc" in row for part in rows.values() for row in part):
        return None
    found: dict[str, Any] = compare_over_seeds(_positive(rows), _positive(center), SLICE_VALUES, num_samples)
    return found


def _positive(rows: Mapping[Any, Sequence[Row]]) -> dict[Any, list[Row]]:
    return {seed: [row for row in part if "instance_auroc" in row] for seed, part in rows.items()}


def _flat(rows: Mapping[Any, Sequence[Row]]) -> list[tuple[Any, Row]]:
    return [(seed, row) for seed, part in rows.items() for row in part]


def _ends(interval: tuple[float, float]) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in interval]


def _defined(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if np.isfinite(value) else None for name, value in values.items()}
