"""Penalized models of the clinical variables alone, for each task of a study."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.apps.study.tasks import Task
from monai_mil_ext.utils import optional_dependency

__all__ = ["ClinicalModel", "baseline_hazard", "cox_log_likelihood"]

linear_model = optional_dependency("", "sklearn.linear_model")
minimize = optional_dependency("", "scipy.optimize", "minimize")
model_selection = optional_dependency("", "sklearn.model_selection")
special = optional_dependency("", "scipy.special")
PENALTIES = (0.1, 1.0, 10.0, 100.0, 1000.0)
FOLDS = 5

Array = NDArray[np.float64]
Coefficients = tuple[Array, Array]  # (K, P) of standardized columns, and intercepts (K,)


@dataclass(frozen=True)
class ClinicalModel:
    """Linear model of encoded clinical variables, with a ridge penalty chosen by cross-validation.

    It is a logistic regression for two classes, a multinomial one for several (also for ordered classes), one logistic
    regression for each of several labels, a ridge regression, or a Cox regression.

    Args:
        columns: names of the P encoded columns.
        center: mean of each column in the training part.
        scale: standard deviation of each column in the training part.
        coefficients: coefficients (K, P) of the standardized columns.
        intercept: intercepts (K,).
        penalty: strength of the ridge penalty.
        times: times of ``hazard``, if survival is predicted.
        hazard: cumulative baseline hazard at ``times``.
    """

    columns: Sequence[str]
    center: Array
    scale: Array
    coefficients: Array
    intercept: Array
    penalty: float = 0.0
    times: Array | None = None
    hazard: Array | None = None

    @classmethod
    def fit(
        cls,
        x: Array,
        truth: NDArray[Any],
        patients: Sequence[str],
        task: Task,
        columns: Sequence[str],
        times: Array | None = None,
    ) -> ClinicalModel:
        """Fit the model, with the penalty of the highest likelihood in a cross-validation by patient.

        Args:
            x: encoded variables (n, P) of the training part.
            truth: labels, see :py:class:`monai_mil_ext.apps.study.Task`.
            patients: patient of each case.
            task: the task.
            columns: names of the columns of ``x``.
            times: times at which survival is predicted, if at all.
        """
        center, scale = (x.mean(axis=0), x.std(axis=0)) if len(x) else (np.zeros(x.shape[1]), np.zeros(x.shape[1]))
        scale = np.where(scale > 0, scale, 1.0)
        z = (x - center) / scale
        penalty = choose_penalty(z, truth, patients, task)
        coefficients, intercept = fit_linear(z, truth, task, penalty)
        hazard = None
        if task.has_times and times is not None:
            hazard = baseline_hazard(z @ coefficients[0] + intercept[0], truth, times)
        return cls(tuple(columns), center, scale, coefficients, intercept, penalty, times, hazard)

    def predict(self, x: Array, task: Task) -> tuple[Array, Array | None]:
        """Return the outputs (n, D) of the task, and survival (n, T) if its times are known."""
        logits = (x - self.center) / self.scale @ self.coefficients.T + self.intercept
        if task.kind == "multilabel":
            return special.expit(logits), None
        if task.kind in ("classification", "ordinal"):
            return special.softmax(logits, axis=1), None
        return logits, None if self.hazard is None else np.exp(-self.hazard * np.exp(logits))

    def to_json(self) -> dict[str, Any]:
        """Return the model as JSON."""
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in {**vars(self), "columns": list(self.columns)}.items()
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ClinicalModel:
        """Return the model that :py:meth:`to_json` saved."""
        arrays = ("center", "scale", "coefficients", "intercept", "times", "hazard")
        values: dict[str, Any] = {
            n: np.asarray(v, dtype=float) if n in arrays and v is not None else v for n, v in content.items()
        }
        return cls(**values)


def fit_linear(z: Array, truth: NDArray[Any], task: Task, penalty: float) -> Coefficients:
    """Fit coefficients and intercepts of standardized columns with a given penalty."""
    if task.kind == "multilabel":
        known = [~np.isnan(column) for column in truth.T]
        fits = [_logistic(z[k], column[k].astype(int), 2, penalty) for k, column in zip(known, truth.T, strict=True)]
        return np.stack([c[1] - c[0] for c, _ in fits]), np.array([i[1] - i[0] for _, i in fits])
    if task.kind in ("classification", "ordinal"):
        return _logistic(z, truth, len(task.class_names), penalty)
    if task.kind == "regression":
        return _ridge(z, truth, penalty)
    return _cox(z, truth, penalty)


def _logistic(z: Array, truth: NDArray[Any], num_classes: int, penalty: float) -> Coefficients:
    """Fit a logistic regression; classes that do not occur get the probability of half a case."""
    coefficients = np.zeros((num_classes, z.shape[1]))
    counts = np.bincount(truth, minlength=num_classes)
    intercept = np.log((counts + 0.5) / (counts.sum() + 0.5 * num_classes))
    present = np.flatnonzero(counts)
    if len(present) < 2 or z.shape[1] == 0:
        return coefficients, intercept
    model = linear_model.LogisticRegression(C=1 / penalty, max_iter=1000).fit(z, truth)
    if len(present) == 2:
        coefficients[present[1]], offset = model.coef_[0], np.array([0.0, model.intercept_[0]])
    else:
        coefficients[present], offset = model.coef_, model.intercept_
    intercept[present] = offset - offset.mean() + intercept[present].mean()
    return coefficients, intercept


def _ridge(z: Array, truth: Array, penalty: float) -> Coefficients:
    mean, deviation = truth.mean(), truth.std()
    if z.shape[1] == 0 or deviation == 0:
        return np.zeros((1, z.shape[1])), np.array([mean])
    model = linear_model.Ridge(alpha=penalty).fit(z, (truth - mean) / deviation)
    return model.coef_[None] * deviation, np.array([mean + model.intercept_ * deviation])


def _cox(z: Array, truth: Array, penalty: float) -> Coefficients:
    """Fit a Cox regression by L-BFGS, which also converges where the steps of Newton's method are too long."""

    def loss(beta: Array) -> tuple[float, Array]:
        value, slope = _cox_loss(z @ beta, truth)
        return value + penalty / 2 * float(beta @ beta), z.T @ slope + penalty * beta

    start = np.zeros(z.shape[1])
    if not len(start) or not truth[:, 1].any():
        return start[None], np.zeros(1)
    return minimize(loss, start, jac=True, method="L-BFGS-B").x[None], np.zeros(1)


def _cox_loss(risk: Array, truth: Array) -> tuple[float, Array]:
    """Return the negative partial log-likelihood and its derivative by each risk."""
    likelihood = cox_log_likelihood(risk, truth)
    events = truth[:, 1] == 1
    order = np.argsort(truth[:, 0], kind="stable")
    totals = np.where(events, np.exp(likelihood - risk, where=events, out=np.zeros(len(risk))), 0.0)  # 1 / sum of exp
    sums = np.concatenate([[0.0], totals[order].cumsum()])
    before = sums[np.searchsorted(truth[order, 0], truth[:, 0], side="right")]  # events up to the time of each case
    return -float(np.nansum(likelihood)), np.exp(risk) * before - events


def choose_penalty(z: Array, truth: NDArray[Any], patients: Sequence[str], task: Task) -> float:
    """Choose the penalty whose cross-validated log-likelihood is highest; the strongest if that is impossible."""
    splits = list(inner_splits(truth, patients, task)) if z.shape[1] else []
    if not splits:
        return PENALTIES[-1]

    def score(penalty: float) -> float:
        return sum(_held_out(z, truth, train, test, task, penalty) for train, test in splits)

    return float(max(reversed(PENALTIES), key=score))


def inner_splits(truth: NDArray[Any], patients: Sequence[str], task: Task) -> Iterator[tuple[NDArray[Any], ...]]:
    """Yield training and test rows of a cross-validation by patient, stratified by class or event where possible."""
    names, groups = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    folds = min(FOLDS, len(names))
    strata = truth[:, 1].astype(int) if task.has_times else truth
    if folds < 2:
        return
    if task.kind in ("regression", "multilabel") or np.unique(strata, return_counts=True)[1].min() < folds:
        yield from model_selection.GroupKFold(folds, shuffle=True, random_state=0).split(groups, groups=groups)
    else:
        splitter = model_selection.StratifiedGroupKFold(folds, shuffle=True, random_state=0)
        yield from splitter.split(groups, strata, groups=groups)


def _held_out(z: Array, truth: NDArray[Any], train: Any, test: Any, task: Task, penalty: float) -> float:
    """Return the log-likelihood of the test rows, of a Cox regression that of all rows less that of the training."""
    coefficients, intercept = fit_linear(z[train], truth[train], task, penalty)
    logits = z @ coefficients.T + intercept
    if task.has_times:
        risk = logits[:, 0]
        gain: Callable[[Any], float] = lambda rows: float(np.nansum(cox_log_likelihood(risk[rows], truth[rows])))  # noqa: E731
        return gain(slice(None)) - gain(train)
    if task.kind == "regression":
        return -float(np.sum((truth[test] - logits[test, 0]) ** 2))
    if task.kind == "multilabel":
        return float(np.nansum(special.log_expit(np.where(truth[test] == 1, 1, -1) * logits[test]) + 0 * truth[test]))
    return float(special.log_softmax(logits[test], axis=1)[np.arange(len(test)), truth[test]].sum())


def cox_log_likelihood(risk: Array, truth: Array) -> Array:
    """Return the partial log-likelihood of each event (n,), with Breslow's handling of ties; NaN for censored cases."""
    order = np.argsort(-truth[:, 0], kind="stable")
    times = truth[order, 0]
    totals = np.logaddexp.accumulate(risk[order]) if len(risk) else risk
    last = np.searchsorted(-times, -times, side="right") - 1  # all cases of the same time are still at risk
    values = np.empty(len(risk))
    values[order] = risk[order] - totals[last]
    return np.where(truth[:, 1] == 1, values, np.nan)


def baseline_hazard(risk: Array, truth: Array, times: Array) -> Array:
    """Return Breslow's cumulative baseline hazard at given times (T,)."""
    events = np.flatnonzero(truth[:, 1] == 1)
    at_risk = truth[None, :, 0] >= truth[events, None, 0]
    steps = 1 / (at_risk * np.exp(risk)[None]).sum(axis=1)
    return (steps[None] * (truth[events, 0][None] <= np.asarray(times)[:, None])).sum(axis=1)
