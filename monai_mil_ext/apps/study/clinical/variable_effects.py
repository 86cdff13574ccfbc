"""Effects of clinical variables on the outcome, with intervals, alone and beside the bag."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.apps.study.predictions import Predictions
from monai_mil_ext.apps.study.tasks import Task
from monai_mil_ext.utils import optional_dependency

from .covariate_encoding import CovariateEncoding, Variable, as_number, covariate_cells, is_missing, level_name
from .separation import separating_direction

__all__ = ["effect_table"]

stats = optional_dependency("", "scipy.stats")
LogisticRegression = optional_dependency("", "sklearn.linear_model", "LogisticRegression")
lifelines = optional_dependency("study", "lifelines")
pd = optional_dependency("study", "pandas")
BAG = "bag score"
PER_COEFFICIENT = 10  # cases of the rarer class, or events, for each coefficient

Array = NDArray[np.float64]
Items = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Term:
    """Columns of one variable: per standard deviation of a number, or levels against the most frequent one."""

    kind: str
    names: Sequence[str]
    columns: Array  # (n, number of names), NaN where the value is missing


def effect_table(
    items: Items,
    task: Task,
    bag: Predictions | None = None,
    columns: Sequence[str] | None = None,
    kinds: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Estimate the effect of each clinical variable on the whole cohort, without a penalty.

    The effect is an odds ratio (logistic regression), a difference of means (linear regression) or a hazard ratio (Cox
    regression), for one standard deviation of a number or for a category against the most frequent one. Each variable
    is estimated alone (``"univariable"``) and together with all others and the out-of-fold score of the bag
    (``"multivariable"``). Cases with a missing value are left out of the models that need it, which is unbiased if
    values are missing at random with respect to the outcome. Intervals are Wald's; if patients have several cases, they
    are robust to the correlation within a patient. A variable that explains outcomes without an error (separation) has
    no finite estimate: it gets NaN and a note.

    Of several classes each is compared with the rest, of ordered classes those above each cut with those below, and of
    several labels each is estimated by itself.

    Args:
        items: all items of the cohort.
        task: the task.
        bag: predictions of a method; scores of the part ``"test"`` are standardized within each fold.
        columns: variables to use; by default all.
        kinds: ``"number"`` or ``"category"`` by variable, where the cells do not tell.

    Returns:
        Rows with ``outcome``, ``model``, ``name``, ``kind``, ``effect`` (``"odds ratio"``, ...), ``ratio``, ``low``,
        ``high``, ``p``, ``num_cases`` and ``note``.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> ages, labels = rng.normal(60, 10, 200), np.arange(200) % 2
        >>> items = [
        ...     {"case_id": str(i), "patient": str(i), "label": int(y), "covariates": {"age": f"{a + 6 * y:.0f}"}}
        ...     for i, (a, y) in enumerate(zip(ages, labels))
        ... ]
        >>> row = effect_table(items, Task("classification", ("benign", "malignant")))[0]
        >>> row["name"], row["effect"], bool(1 < row["low"] < row["ratio"] < row["high"])
        ('age, per 10 (SD)', 'odds ratio', True)
    """
    encoding = CovariateEncoding.fit(items, columns, kinds, task)
    shared = [clinical_term(variable, items) for variable in encoding.variables]
    rows: list[dict[str, Any]] = []
    for number, (outcome, truth) in enumerate(outcomes(items, task)):
        terms = shared if bag is None else [*shared, bag_term(items, task, bag, number)]
        groups = np.unique([str(item["patient"]) for item in items], return_inverse=True)[1]
        sets = [("univariable", [term]) for term in terms]
        sets += [("multivariable", terms)] if len(terms) > 1 else []
        for model, chosen in sets:
            rows += [{"outcome": outcome, "model": model, **row} for row in estimate(chosen, truth, groups, task)]
    return rows


def outcomes(items: Items, task: Task) -> Iterator[tuple[str, Array]]:
    """Yield the name and the labels of each outcome that is estimated by itself."""
    truth = task.truth(items).astype(float)
    names = task.class_names
    if task.kind == "multilabel":
        yield from zip(names, truth.T, strict=True)
    elif task.kind == "ordinal":
        yield from ((f"above {name}", (truth > i).astype(float)) for i, name in enumerate(names[:-1]))
    elif task.is_binary:
        yield names[1], truth
    elif task.kind == "classification":
        yield from ((name, (truth == i).astype(float)) for i, name in enumerate(names))
    else:
        yield {"regression": "value"}.get(task.kind, "event"), truth


def clinical_term(variable: Variable, items: Items) -> Term:
    """Return the columns of a clinical variable."""
    cells = covariate_cells(items, variable.name)
    if variable.kind == "number":
        values = np.array([as_number(cell) for cell in cells])
        deviation = float(np.nanstd(values)) or 1.0
        return Term("number", [f"{variable.name}, per {deviation:.2g} (SD)"], (values / deviation)[:, None])
    keys = [level_name(cell).casefold() for cell in cells]
    levels = [level for level in variable.levels if not is_missing(level) or level.casefold() == "none"]
    columns = np.array([[float(key == level.casefold()) for level in levels[1:]] for key in keys])
    columns[np.array([key not in [level.casefold() for level in levels] for key in keys])] = np.nan
    return Term("category", [f"{variable.name}: {level} against {levels[0]}" for level in levels[1:]], columns)


def bag_term(items: Items, task: Task, bag: Predictions, number: int) -> Term:
    """Return the out-of-fold score of the bag: standardized within each fold, and averaged over repeats."""
    test = bag.of_part("test")
    scores = _bag_scores(test.output, task, number)
    for fold in np.unique(test.fold):
        rows = test.fold == fold
        deviation = scores[rows].std()
        scores[rows] = (scores[rows] - scores[rows].mean()) / (deviation if deviation > 0 else 1.0)
    cases, index = np.unique(np.asarray(test.case_id, dtype=str), return_inverse=True)
    means = dict(zip(cases.tolist(), np.bincount(index, scores) / np.bincount(index), strict=True))
    column = np.array([means.get(str(item["case_id"]), math.nan) for item in items])
    deviation = float(np.nanstd(column)) or 1.0
    return Term("bag", [f"{BAG}, per SD"], (column / deviation)[:, None])


def _bag_scores(output: Array, task: Task, number: int) -> Array:
    if task.kind == "ordinal":
        positive = output[:, number + 1 :].sum(axis=1)
    elif task.is_binary:
        positive = output[:, 1]
    elif task.kind in ("classification", "multilabel"):
        positive = output[:, number]
    else:
        return np.array(output[:, 0])
    positive = np.clip(positive, 1e-6, 1 - 1e-6)
    return np.log(positive / (1 - positive))


def estimate(terms: Sequence[Term], truth: Array, groups: NDArray[Any], task: Task) -> list[dict[str, Any]]:
    """Estimate one model, and return a row for each of its coefficients."""
    x = np.hstack([term.columns for term in terms])
    known = ~np.isnan(np.column_stack([x, truth.reshape(len(truth), -1)])).any(axis=1)
    x, truth, groups = x[known], truth[known], groups[known]
    names = [(name, term.kind) for term in terms for name in term.names]
    values, notes = fit_effects(x, truth, groups, task)
    effect = "difference" if task.kind == "regression" else "hazard ratio" if task.has_times else "odds ratio"
    general = _power_note(x, truth, task)
    return [
        {"name": name, "kind": kind, "effect": effect, **dict(zip(("ratio", "low", "high", "p"), row, strict=True))}
        | {"num_cases": len(x), "note": note or general}
        for (name, kind), row, note in zip(names, values.tolist(), notes, strict=True)
    ]


def _power_note(x: Array, truth: Array, task: Task) -> str:
    if task.kind == "regression":
        return ""
    label = truth[:, 1] if task.has_times else truth
    rarer = int(label.sum()) if task.has_times else int(min(label.sum(), len(label) - label.sum()))
    what = "events" if task.has_times else "cases of the rarer class"
    count = x.shape[1]
    return f"only {rarer} {what} for {count} coefficient(s)" if rarer < PER_COEFFICIENT * count else ""


def fit_effects(x: Array, truth: Array, groups: NDArray[Any], task: Task) -> tuple[Array, list[str]]:
    """Return ratio, low, high and p of each column (P, 4), and a note for each that has none."""
    values, notes = np.full((x.shape[1], 4), math.nan), [""] * x.shape[1]
    columns = independent_columns(x, range(x.shape[1]))
    for column in set(range(x.shape[1])) - set(columns):
        notes[column] = "not estimated: constant, or determined by the others"
    rows, strata = np.arange(len(x)), np.zeros(len(x))
    if task.kind != "regression":
        rows, strata, columns, separated = remove_separation(x, truth, columns)
        for column in separated:
            notes[column] = "no finite estimate: it explains some outcomes without an error (separation)"
    if columns:
        fit = _linear if task.kind == "regression" else _cox if task.has_times else _logistic
        values[columns] = fit(x[rows][:, columns], truth[rows], groups[rows], strata)
    for column in np.flatnonzero(np.isnan(values[:, 0])).tolist():
        notes[column] = notes[column] or "not estimated: too few cases, or no convergence"
    return values, notes


def remove_separation(
    x: Array, truth: Array, columns: Sequence[int]
) -> tuple[NDArray[Any], NDArray[Any], list[int], list[int]]:
    """Remove columns by which outcomes are separated, until none is.

    In the limit of a separation, cases that are explained without an error carry no information on the other columns:
    they leave a logistic regression, and are compared only among themselves in a Cox regression.

    Returns:
        Rows that are left, their strata, columns that are left, and columns that were removed.
    """
    rows, strata, left, removed = np.arange(len(x)), np.zeros(len(x)), list(columns), []
    while left:
        direction = separating_direction(x[rows][:, left], truth[rows])
        if direction is None:
            break
        levels = (x[rows][:, left] @ direction).round(6)
        strata = np.unique(np.column_stack([strata, levels]), axis=0, return_inverse=True)[1].astype(float)
        removed += [column for column, part in zip(left, direction, strict=True) if part != 0]
        left = [column for column in left if column not in removed]
        if truth.ndim == 1:
            mixed = np.array([len(np.unique(truth[rows][strata == stratum])) > 1 for stratum in strata])
            rows, strata = rows[mixed], strata[mixed]
            left = independent_columns(x[rows], left)
    return rows, strata, left, removed


def independent_columns(x: Array, columns: Sequence[int]) -> list[int]:
    """Return the columns that are neither constant nor a combination of earlier ones."""
    chosen: list[int] = []
    if len(x) < 3:
        return chosen
    z = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 1e-12, x.std(axis=0), 1.0)
    for column in columns:
        if np.linalg.matrix_rank(z[:, [*chosen, column]], tol=1e-6 * math.sqrt(len(z))) > len(chosen):
            chosen.append(column)
    return chosen if len(x) > len(chosen) + 1 else []


def _wald(beta: Array, covariance: Array, distribution: Any, exponentiate: bool) -> Array:
    """Return estimate, 95 % interval and two-sided p of each coefficient (P, 4)."""
    error = np.sqrt(np.diag(covariance))
    half = distribution.ppf(0.975) * error
    interval = np.column_stack([beta, beta - half, beta + half])
    return np.column_stack([np.exp(interval) if exponentiate else interval, 2 * distribution.sf(np.abs(beta / error))])


def _sandwich(bread: Array, scores: Array, groups: NDArray[Any]) -> Array:
    """Return the covariance of coefficients; robust by group if some group has several cases."""
    labels, index = np.unique(groups, return_inverse=True)
    if len(labels) == len(groups):
        return bread
    sums = np.stack([np.bincount(index, column) for column in scores.T], axis=1)
    return bread @ (sums.T @ sums) @ bread * len(labels) / (len(labels) - 1)


def _logistic(x: Array, truth: Array, groups: NDArray[Any], strata: Array) -> Array:
    center, scale = x.mean(axis=0), x.std(axis=0)
    z = (x - center) / scale
    model = LogisticRegression(C=np.inf, tol=1e-8, max_iter=10_000).fit(z, truth)
    p = model.predict_proba(z)[:, 1]
    design = np.column_stack([z, np.ones(len(z))])
    bread = np.linalg.inv(design.T @ (design * (p * (1 - p))[:, None]))
    covariance = _sandwich(bread, design * (truth - p)[:, None], groups)[:-1, :-1]
    return _wald(model.coef_[0] / scale, covariance / np.outer(scale, scale), stats.norm, exponentiate=True)


def _linear(x: Array, truth: Array, groups: NDArray[Any], strata: Array) -> Array:
    design = np.column_stack([x, np.ones(len(x))])
    beta: Array = np.linalg.lstsq(design, truth, rcond=None)[0].astype(np.float64)
    residual, freedom = truth - design @ beta, len(x) - design.shape[1]
    variance = residual @ residual / freedom
    bread = np.linalg.inv(design.T @ design)
    repeated = len(np.unique(groups)) < len(groups)
    covariance = _sandwich(bread, design * residual[:, None], groups) if repeated else bread * variance
    return _wald(beta[:-1], covariance[:-1, :-1], stats.t(freedom), exponentiate=False)


def _cox(x: Array, truth: Array, groups: NDArray[Any], strata: Array) -> Array:
    repeated = len(np.unique(groups)) < len(groups)
    frame = pd.DataFrame(x, columns=[f"x{i}" for i in range(x.shape[1])])
    frame = frame.assign(time=truth[:, 0], event=truth[:, 1], stratum=strata)
    frame = frame.assign(group=groups) if repeated else frame
    options = {"strata": ["stratum"], "cluster_col": "group" if repeated else None}
    for step in (0.95, 0.2):  # lifelines' Newton steps, and shorter ones where they diverge
        with suppress(lifelines.exceptions.ConvergenceError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitter = lifelines.CoxPHFitter().fit(frame, "time", "event", fit_options={"step_size": step}, **options)
            covariance: Array = np.diag(fitter.standard_errors_.to_numpy(dtype=float) ** 2)
            return _wald(fitter.params_.to_numpy(), covariance, stats.norm, exponentiate=True)
    return np.full((x.shape[1], 4), math.nan)
