"""Late fusion of two predictions of the same cases, such as those of a network and of clinical variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.apps.study.tasks import Task
from monai_mil_ext.utils import optional_dependency

from .clinical_models import cox_log_likelihood

__all__ = ["LateFusion"]

minimize = optional_dependency("", "scipy.optimize", "minimize")
special = optional_dependency("", "scipy.special")
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
FLOOR = 1e-6  # lowest probability
BIAS = 0.3  # mean error of values that were trained in their unit, in standard deviations of the labels
WIDEST = 9.0  # largest change of the logarithm of a scale

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """Calibration of scores (n, K): ``slope * (score - center) / spread + shift``.

    Args:
        center: mean of the scores of the validation part, for values and risks.
        spread: their standard deviation.
        slope: the one scale, above 0.
        shift: a constant for each of the K scores.
    """

    center: float
    spread: float
    slope: float
    shift: Sequence[float]

    def __call__(self, scores: Array) -> Array:
        """Return the calibrated scores."""
        return self.slope * (scores - self.center) / self.spread + np.asarray(self.shift)


@dataclass(frozen=True)
class Blend:
    """Fusion of one outcome.

    Args:
        clinical: calibration of the clinical variables.
        bag: calibration of the bag.
        both: calibration of their weighted mean.
        weight: weight of the bag.
        share: share of the bag in the variation of the weighted mean; low if its scale is low.
        note: sentence for the report, or ``""``.
    """

    clinical: Calibration
    bag: Calibration
    both: Calibration
    weight: float
    share: float
    note: str = ""

    def __call__(self, clinical: Array, bag: Array) -> Array:
        """Return the combined scores."""
        return self.both(self.weight * self.bag(bag) + (1 - self.weight) * self.clinical(clinical))


@dataclass(frozen=True)
class LateFusion:
    r"""Weighted mean of two predictions in log-odds, values or risks.

    On the validation part each prediction gets one scale and a shift (Platt scaling, with the temperature as the
    scale), both with a prior that keeps them near 1 and 0. The weight w of the bag is one of 0, 0.25, 0.5, 0.75 and 1.
    Since a validation part is small, w is not that of the highest likelihood, but the one nearest to 0.5 whose mean
    log-likelihood per patient is within one standard error of the highest; the error is that of the paired
    difference. The mean is calibrated once more, because two predictions that agree are surer than each of them. A
    prediction that knows nothing gets a scale near 0, hence a small share of the mean, whatever its weight.

    Args:
        blends: fusion of each outcome: one, or one for each of several labels.

    Example:
        >>> task = Task("classification", ("benign", "malignant"))
        >>> truth = np.arange(200) % 2
        >>> good, poor = np.where(truth, 0.8, 0.2), np.full(200, 0.5)
        >>> good, poor = (np.column_stack([1 - p, p]) for p in (good, poor))
        >>> patients = [str(i) for i in range(200)]
        >>> LateFusion.fit(poor, good, truth, patients, task).shares
        [1.0]
    """

    blends: Sequence[Blend]

    @classmethod
    def fit(cls, clinical: Array, bag: Array, truth: NDArray[Any], patients: Sequence[str], task: Task) -> LateFusion:
        """Choose scales and weights on the validation part.

        Args:
            clinical: outputs (n, D) of the clinical variables, see :py:class:`monai_mil_ext.apps.study.Task`.
            bag: outputs (n, D) of the network.
            truth: labels.
            patients: patient of each case.
            task: the task.
        """
        groups = np.unique(np.asarray(patients, dtype=str), return_inverse=True)[1]
        pairs = zip(_scores(clinical, task), _scores(bag, task), _labels(truth, task), strict=True)
        return cls(tuple(_fit_blend(a, b, label, groups, task) for a, b, label in pairs))

    def __call__(self, clinical: Array, bag: Array, task: Task) -> Array:
        """Return the combined outputs (n, D)."""
        pairs = zip(_scores(clinical, task), _scores(bag, task), strict=True)
        scores = [blend(a, b) for blend, (a, b) in zip(self.blends, pairs, strict=True)]
        if task.kind == "multilabel":
            return np.column_stack([special.softmax(score, axis=1)[:, 1] for score in scores])
        return special.softmax(scores[0], axis=1) if task.kind in ("classification", "ordinal") else scores[0]

    @property
    def weights(self) -> list[float]:
        """Weight of the bag for each outcome."""
        return [blend.weight for blend in self.blends]

    @property
    def shares(self) -> list[float]:
        """Share of the bag in the variation of the combined scores, for each outcome."""
        return [blend.share for blend in self.blends]

    @property
    def notes(self) -> list[str]:
        """Sentences about outcomes that the validation part could not weigh."""
        return list(dict.fromkeys(blend.note for blend in self.blends if blend.note))

    def to_json(self) -> list[dict[str, Any]]:
        """Return the fusion as JSON."""
        return [asdict(blend) for blend in self.blends]

    @classmethod
    def from_json(cls, content: Sequence[Mapping[str, Any]]) -> LateFusion:
        """Return the fusion that :py:meth:`to_json` saved."""
        names = ("clinical", "bag", "both")
        return cls(tuple(Blend(**{**blend, **{n: Calibration(**blend[n]) for n in names}}) for blend in content))


def _scores(output: Array, task: Task) -> list[Array]:
    """Return the scores (n, K) of each outcome: log-probabilities, values or risks."""
    if task.kind == "multilabel":
        return [np.log(np.clip(np.column_stack([1 - p, p]), FLOOR, None)) for p in output.T]
    return [np.log(np.clip(output, FLOOR, None)) if task.kind in ("classification", "ordinal") else output]


def _labels(truth: NDArray[Any], task: Task) -> list[NDArray[Any]]:
    return list(truth.T) if task.kind == "multilabel" else [truth]


def _fit_blend(clinical: Array, bag: Array, truth: NDArray[Any], groups: NDArray[Any], task: Task) -> Blend:
    """Fit calibrations and weight of one outcome."""
    known = ~np.isnan(np.asarray(truth, dtype=float).reshape(len(truth), -1)).any(axis=1)
    clinical, bag, truth = clinical[known], bag[known], truth[known]
    groups = np.unique(groups[known], return_inverse=True)[1]
    labels = truth[:, 1] if task.has_times else truth
    varied = len(np.unique(labels)) > 1 or (task.has_times and labels.any())
    if not varied:
        neutral = [Calibration(*_spread(x, task, groups), *_unit(x, task, groups)) for x in (clinical, bag)]
        note = (
            "A validation part has cases of one class or without events; there, bag and clinical variables weigh alike."
        )
        return Blend(neutral[0], neutral[1], Calibration(0.0, 1.0, 1.0, (0.0,) * bag.shape[1]), 0.5, 0.5, note)
    parts = [_calibrate(scores, truth, task, groups) for scores in (clinical, bag)]
    a, b = (part(scores) for part, scores in zip(parts, (clinical, bag), strict=True))
    mixes = [w * b + (1 - w) * a for w in WEIGHTS]
    finals = [_calibrate(mix, truth, task, groups) for mix in mixes]
    gains = [log_likelihood(final(mix), truth, task) for final, mix in zip(finals, mixes, strict=True)]
    chosen = choose_weight(gains, groups)
    weight = WEIGHTS[chosen]
    parts_spread = (1 - weight) * _variation(a, groups), weight * _variation(b, groups)
    return Blend(parts[0], parts[1], finals[chosen], weight, parts_spread[1] / (sum(parts_spread) or 1.0))


def _variation(scores: Array, groups: NDArray[Any]) -> float:
    """Return the standard deviation of scores, without what is common to all classes of a case."""
    differences = scores - scores.mean(axis=1, keepdims=True) if scores.shape[1] > 1 else scores
    return float(np.sqrt(sum(_moments(column, groups)[1] ** 2 for column in differences.T)))


def _moments(values: Array, groups: NDArray[Any]) -> tuple[float, float]:
    """Return the mean and the standard deviation of values (n,), in which each patient counts once."""
    counts = np.bincount(groups)
    mean = float(np.average(values, weights=1 / counts[groups]))
    return mean, float(np.sqrt(np.average((values - mean) ** 2, weights=1 / counts[groups])))


def choose_weight(gains: Sequence[Array], groups: NDArray[Any]) -> int:
    """Choose the weight nearest to 0.5 whose mean gain per patient is within one standard error of the best."""
    means = np.stack([_patient_means(gain, groups) for gain in gains])
    means = means[:, ~np.isnan(means).any(axis=0)]
    count = means.shape[1]
    best = int(np.argmax(means.mean(axis=1)))
    by_distance = sorted(range(len(WEIGHTS)), key=lambda i: (abs(WEIGHTS[i] - 0.5), -means[i].mean()))
    for index in by_distance:
        loss = means[best] - means[index]
        error = loss.std(ddof=1) / np.sqrt(count) if count > 1 else np.inf
        if index == best or loss.mean() <= error:
            return index
    return best


def _patient_means(values: Array, groups: NDArray[Any]) -> Array:
    """Return the mean of the known values of each patient; NaN if none is known."""
    known = ~np.isnan(values)
    total = np.bincount(groups[known], values[known], groups.max() + 1)
    count = np.bincount(groups[known], minlength=groups.max() + 1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def log_likelihood(scores: Array, truth: NDArray[Any], task: Task) -> Array:
    """Return the log-likelihood (n,) of calibrated scores; NaN for censored cases."""
    if task.has_times:
        return cox_log_likelihood(scores[:, 0], truth)
    if task.kind == "regression":
        squares = (truth - scores[:, 0]) ** 2
        return -squares / (2 * max(float(np.var(truth)), 1e-12))
    return special.log_softmax(scores, axis=1)[np.arange(len(truth)), truth.astype(int)]


def _spread(scores: Array, task: Task, groups: NDArray[Any]) -> tuple[float, float]:
    """Return mean and standard deviation of values and risks, so that the fit does not depend on their unit."""
    if task.kind not in ("regression", "survival", "cox"):
        return 0.0, 1.0
    center, spread = _moments(scores[:, 0], groups)
    return center, spread or 1.0


def _unit(scores: Array, task: Task, groups: NDArray[Any]) -> tuple[float, tuple[float, ...]]:
    """Return the prior of slope and shift.

    Probabilities, values and log hazards have a meaning of their own, and stay as they are: a prediction that hardly
    varies is not blown up. The risk of discrete times has none, and varies by 1.
    """
    center, spread = _spread(scores, task, groups)
    if task.kind == "regression":
        return spread, (center,)
    return spread if task.kind == "cox" else 1.0, (0.0,) * scores.shape[1]


def _calibrate(scores: Array, truth: NDArray[Any], task: Task, groups: NDArray[Any]) -> Calibration:
    """Fit slope and shift by penalized likelihood, in which each patient counts once."""
    center, spread = _spread(scores, task, groups)
    slope, shift = _unit(scores, task, groups)
    deviation = (_moments(truth.astype(float), groups)[1] or 1.0) if task.kind == "regression" else 1.0
    unit = BIAS * deviation if task.kind == "regression" else 1.0  # of the shift
    standard = (scores - center) / spread

    def calibrated(values: Array) -> tuple[float, Array]:
        return slope * float(np.exp(values[0])), np.asarray(shift) + unit * values[1:]

    def loss(values: Array) -> float:
        scale, offset = calibrated(values)
        gains = log_likelihood(scale * standard + offset, truth, task)
        return float(values @ values / 2 - np.nansum(_patient_means(gains, groups)))

    bounds = [(-WIDEST, WIDEST), *[(None, None)] * len(shift)]
    starts = np.zeros((2, 1 + len(shift)))
    starts[1, 0] = np.clip(
        np.log(deviation / slope), -WIDEST, WIDEST
    )  # a slope near 0 is flat, even if a high one is better
    found = [minimize(loss, start, method="L-BFGS-B", bounds=bounds) for start in np.unique(starts, axis=0)]
    scale, offset = calibrated(min(found, key=lambda result: float(result.fun)).x)
    return Calibration(center, spread, scale, tuple(map(float, offset)))
