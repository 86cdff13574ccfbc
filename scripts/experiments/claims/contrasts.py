"""Paired differences of variants, with intervals by drawing seeds and, within them, scans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MEASURES", "Draws", "contrast", "estimate"]

Rows = Mapping[int, Sequence[Mapping[str, Any]]]  # of a variant, by seed
MEASURES = ("bag_auroc", "bag_macro_f1", "instance_auroc", "entropy_ratio", "received_auroc", "attention_jsd")
SPREAD = "sd_macro_f1"


class Draws:
    """Draws of seeds and of the scans within them, the same for all variants; the first draw is all scans, once.

    Args:
        sizes: number of scans of each seed.
        num_samples: number of draws.
        seed: random seed.
    """

    def __init__(self, sizes: Mapping[int, int], num_samples: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.seeds = list(sizes)
        count = len(self.seeds)
        drawn = rng.multinomial(count, np.full(count, 1 / count), num_samples)
        self.of_seeds = np.vstack([np.ones(count), drawn])  # (1 + num_samples, seeds): how often each seed is drawn
        self.of_scans = {}
        for number, size in sizes.items():
            times = rng.multinomial(size, np.full(size, 1 / size), num_samples)
            self.of_scans[number] = np.vstack([np.ones(size), times])

    def mean(self, by_seed: Mapping[int, NDArray[Any]]) -> NDArray[Any]:
        """Return the mean over the drawn seeds of values (1 + num_samples,) of each seed."""
        return (self.of_seeds * self._columns(by_seed)).sum(1) / self.of_seeds.sum(1)

    def spread(self, by_seed: Mapping[int, NDArray[Any]]) -> NDArray[Any]:
        """Return the sample standard deviation over the drawn seeds; NaN if one seed was drawn every time."""
        values = self._columns(by_seed)
        deviation = values - self.mean(by_seed)[:, None]
        count = self.of_seeds.sum(1)
        variance = (self.of_seeds * deviation**2).sum(1) / (count - 1).clip(1)
        return np.where((self.of_seeds > 0).sum(1) > 1, np.sqrt(variance), np.nan)

    def _columns(self, by_seed: Mapping[int, NDArray[Any]]) -> NDArray[Any]:
        return np.stack([by_seed[seed] for seed in self.seeds], 1)


def estimate(rows: Rows, metric: str, draws: Draws) -> tuple[float, list[float]]:
    """Return the mean of a measure over the seeds, and its 95 % interval."""
    drawn = draws.mean({seed: _values(rows[seed], metric, draws.of_scans[seed]) for seed in draws.seeds})
    return float(drawn[0]), [float(v) for v in np.nanpercentile(drawn[1:], [2.5, 97.5])]


def contrast(plus: Sequence[Rows], minus: Sequence[Rows], metric: str, draws: Draws) -> dict[str, Any]:
    """Return the mean of the variants ``plus`` less that of ``minus``, with its interval.

    Args:
        plus: rows of each variant, by seed; all of the same scans.
        minus: rows of the variants to compare with.
        metric: name of the measure.
        draws: draws of seeds and scans.

    Returns:
        ``plus``, ``minus``, ``difference``, ``interval`` and ``seeds``, the difference of each seed. With less than two
        seeds drawn a spread is NaN, and such draws are left out.
    """
    sides = []
    for side in (plus, minus):
        values = [{seed: _values(rows[seed], metric, draws.of_scans[seed]) for seed in draws.seeds} for rows in side]
        combine = draws.spread if metric == SPREAD else draws.mean
        means = np.mean([combine(of_variant) for of_variant in values], 0)
        sides.append((means, {seed: float(np.mean([v[seed][0] for v in values])) for seed in draws.seeds}))
    (a, a_seeds), (b, b_seeds) = sides
    drawn = (a - b)[1:]
    drawn = drawn[np.isfinite(drawn)]
    interval = [float(v) for v in np.percentile(drawn, [2.5, 97.5])] if len(drawn) else None
    return {
        "plus": float(a[0]),
        "minus": float(b[0]),
        "difference": float(a[0] - b[0]),
        "interval": interval,
        "seeds": [a_seeds[seed] - b_seeds[seed] for seed in draws.seeds],
    }


def _values(rows: Sequence[Mapping[str, Any]], metric: str, weights: NDArray[Any]) -> NDArray[Any]:
    """Return a measure of the scans of one seed for each draw, (1 + num_samples,); ``weights`` are the draws."""
    if metric == "attention_jsd":  # of a whole training
        return np.full(len(weights), rows[0][metric])
    label = np.array([row["label"] for row in rows])
    if metric in (SPREAD, "bag_macro_f1"):
        return _macro_f1(label, np.array([row["probability"] for row in rows]) > 0.5, weights)
    if metric == "bag_auroc":
        return _auroc(label, np.array([row["probability"] for row in rows]), weights)
    column = np.array([row.get(metric, np.nan) for row in rows])
    known = np.isfinite(column)
    with np.errstate(invalid="ignore", divide="ignore"):
        return weights[:, known] @ column[known] / weights[:, known].sum(1)


def _macro_f1(label: NDArray[Any], predicted: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
    scores = []
    for value in (0, 1):
        truth, guess = label == value, predicted == value
        hits, total = weights @ (truth & guess), weights @ truth + weights @ guess
        scores.append(np.where(total > 0, 2 * hits / np.maximum(total, 1), np.nan))
    return np.nanmean(scores, 0)


def _auroc(label: NDArray[Any], score: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
    positive, negative = label > 0, label == 0
    wins = np.sign(score[positive][:, None] - score[negative][None]) / 2 + 0.5
    a, b = weights[:, positive], weights[:, negative]
    pairs = a.sum(1) * b.sum(1)
    return np.where(pairs > 0, ((a @ wins) * b).sum(1) / np.maximum(pairs, 1), np.nan)
