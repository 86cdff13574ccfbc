"""Test cases of a method with the copies of each in all resamples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.apps.study.predictions import Predictions

from .intervals import as_estimate, case_weights
from .rankings import mean_of_finite, mean_within_folds

__all__ = ["CaseSample", "Measure", "finite_rows"]

Array = NDArray[Any]


class Measure(NamedTuple):
    """Metric over resamples.

    Attributes:
        samples: its values (1 + S,), that of the sample first.
        scale: scale of its interval, see :py:func:`as_estimate`.
        num_patients: number of patients that decide it.
    """

    samples: Array
    scale: str = "share"
    num_patients: float = float("nan")


def finite_rows(predictions: Predictions) -> Array:
    """Return a mask (R,) of the rows whose outputs and probabilities of survival are finite."""
    finite = np.isfinite(predictions.output).all(axis=1)
    survival = predictions.survival
    return np.asarray(finite if survival is None else finite & np.isfinite(survival).all(axis=1))


@dataclass(frozen=True)
class CaseSample:
    """Cases of a method, mostly the test cases, with the number of copies of each case in all resamples.

    Args:
        rows: predictions (R rows) of one part of all folds; all outputs are finite.
        weights: copies (1 + S, R), see :py:func:`case_weights`.
    """

    rows: Predictions
    weights: Array

    @classmethod
    def draw(cls, predictions: Predictions, num_samples: int, seed: int, part: str = "test") -> CaseSample:
        """Draw the resamples of one part of all folds, without the rows whose predictions are not finite."""
        rows = predictions.of_part(part)
        finite = finite_rows(rows)
        return cls(rows.select(finite), case_weights(rows.patient, rows.fold.tolist(), num_samples, seed)[:, finite])

    @property
    def everywhere(self) -> Array:
        """Mask (R,) of all rows."""
        return np.ones(len(self.rows), dtype=bool)

    @property
    def num_patients(self) -> int:
        """Number of patients."""
        return self.count_patients(self.everywhere)

    def count_patients(self, mask: Array) -> int:
        """Return the number of patients of some rows."""
        return len({self.rows.patient[i] for i in np.flatnonzero(mask).tolist()})

    def count_cases(self, mask: Array) -> int:
        """Return the number of cases of some rows, which each repeat has once."""
        return len({self.rows.case_id[i] for i in np.flatnonzero(mask).tolist()})

    def restrict(self, mask: Array, resample: bool = True) -> CaseSample:
        """Return the sample of some of the rows, without the resamples if ``resample`` is false."""
        weights = self.weights if resample else self.weights[:1]
        return replace(self, rows=self.rows.select(mask), weights=weights[:, mask])

    def ranking(self, parts: Callable[..., tuple[Array, Array]], *columns: Array, known: Array | None = None) -> Array:
        """Compute a ranking metric within folds, such as ``auroc``, from columns (R,) of the ``known`` rows."""
        chosen = self.everywhere if known is None else known

        def of_fold(mask: Array) -> tuple[Array, Array]:
            rows = mask & chosen
            return parts(*(column[rows] for column in columns), self.weights[:, rows])

        return self._or_nan(lambda: mean_within_folds(of_fold, self.rows.repeat, self.rows.fold))

    def over_repeats(self, metric: Callable[[Array], Array]) -> Array:
        """Compute a metric over the cases of each repeat, given as mask (R,), and return the mean (1 + S,)."""
        repeats = np.unique(self.rows.repeat)
        return self._or_nan(lambda: mean_of_finite(np.array([metric(self.rows.repeat == r) for r in repeats])))

    def mean(self, values: Array) -> Array:
        """Compute the mean (1 + S,) of values (R,) over cases, without those that are NaN."""
        finite = np.isfinite(values)

        def of_repeat(mask: Array) -> Array:
            rows = mask & finite
            total = self.weights[:, rows].sum(axis=1)
            summed = self.weights[:, rows] @ values[rows]
            return np.divide(summed, total, out=np.full(len(total), np.nan), where=total > 0)

        return self.over_repeats(of_repeat)

    def estimate(self, measure: Measure) -> dict[str, float | None]:
        """Return value and interval of a metric."""
        return as_estimate(measure.samples, self.num_patients, measure.scale, measure.num_patients)

    def _or_nan(self, compute: Callable[[], Array]) -> Array:
        return compute() if len(self.rows) else np.full(len(self.weights), np.nan)
