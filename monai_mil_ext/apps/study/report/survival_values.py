"""Integrated Brier score, and Kaplan-Meier curves of groups of the predicted risk."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.utils import optional_dependency

from .case_sample import CaseSample
from .intervals import number
from .rankings import tie_groups

__all__ = ["integrated_brier", "risk_groups", "survival_summary"]

lifelines = optional_dependency("study", "lifelines")
statistics = optional_dependency("study", "lifelines.statistics")
pd = optional_dependency("study", "pandas")
Array = NDArray[Any]
MIN_EVENTS = 3  # in each group
NAMES = {2: ("low risk", "high risk"), 3: ("low risk", "medium risk", "high risk")}
NUM_TIMES = 5  # times at which numbers at risk are listed


def integrated_brier(survival: Array, times: Array, time: Array, event: Array) -> Array:
    r"""Compute the contribution of each case to the integrated Brier score; its mean is the score.

    .. math:: \frac{1}{t_T - t_1} \int_{t_1}^{t_T} \frac{1}{N} \sum_i \frac{([y_i > t] - S_i(t))^2}{w_i(t)} dt

    where the weight w is the probability G of not being censored: G(t) for cases under observation after t, and G just
    before y for those with an earlier event; those censored earlier don't count. G is the Kaplan-Meier estimate of all
    cases. The integral is a trapezoid over the times within the follow-up.

    Args:
        survival: predicted probabilities (N, T) of survival at ``times``.
        times: increasing times (T,); infinite ones don't count.
        time: time (N,) of the event or of censoring.
        event: 1 for an event, 0 for censoring (N,).

    Returns:
        Contributions (N,); NaN if no time is within the follow-up.

    References:
        Graf et al., "Assessment and Comparison of Prognostic Classification Schemes for Survival Data", Statistics in
        Medicine 18, 1999

    Example:
        >>> time, event, times = np.array([1.0, 2.0, 3.0, 4.0]), np.ones(4), np.array([1.5, 2.5])
        >>> integrated_brier(np.full((4, 2), 0.5), times, time, event).mean()
        np.float64(0.25)
    """
    usable = np.isfinite(times) & (times < time.max(initial=-np.inf)) & (times > 0)
    if not usable.any():
        return np.full(len(time), np.nan)
    grid, predicted = times[usable], survival[:, usable]
    censoring = lifelines.KaplanMeierFitter().fit(time, 1 - event)
    at_grid = np.maximum(censoring.predict(grid).to_numpy(), 1e-12) if len(grid) > 1 else censoring.predict(grid[0])
    before = np.asarray(censoring.survival_function_at_times(np.nextafter(time, -np.inf)))
    after = time[:, None] > grid
    earlier = ~after & (event[:, None] == 1)
    weights = after / at_grid + earlier / np.maximum(before, 1e-12)[:, None]
    scores = weights * np.square(after - predicted)
    return np.asarray(np.trapezoid(scores, grid, axis=1) / np.ptp(grid) if len(grid) > 1 else scores[:, 0])


def _shares(values: Array) -> Array:
    """Return the share (N,) of values below each value, ties as half.

    Example:
        >>> _shares(np.array([3.0, 1.0, 2.0])).round(2).tolist()
        [0.83, 0.17, 0.5]
    """
    order, starts = tie_groups(values)
    sizes = np.diff(np.r_[starts, len(values)])
    shares = np.empty(len(values))
    shares[order] = np.repeat(starts + sizes / 2, sizes) / len(values)
    return shares


def risk_groups(sample: CaseSample, num_groups: int) -> tuple[Array, Array]:
    """Divide the cases into groups of equal size by the rank of their risk within their fold.

    With several repeats, a case has the mean of its ranks.

    Args:
        sample: the cases.
        num_groups: number of groups.

    Returns:
        Index of one row of each case, and its group from 0, the lowest risk.
    """
    rows = sample.rows
    share = np.empty(len(rows))
    for fold in np.unique(rows.fold):
        share[rows.fold == fold] = _shares(rows.output[rows.fold == fold, 0])
    _, first, index = np.unique(np.asarray(rows.case_id, dtype=str), return_index=True, return_inverse=True)
    mean = np.bincount(index, share) / np.bincount(index)
    if len(np.unique(rows.repeat)) > 1:
        mean = _shares(mean)
    return first, np.minimum((mean * num_groups).astype(int), num_groups - 1)


def survival_summary(sample: CaseSample) -> tuple[dict[str, Any] | None, list[str]]:
    """Summarize survival by thirds of the predicted risk, with a log-rank test and a hazard ratio.

    Args:
        sample: the cases.

    Returns:
        ``groups`` with the Kaplan-Meier curve and the numbers at risk of each, ``log_rank_p`` and ``hazard_ratio`` (per
        standard deviation of the risk within folds); and notes. Halves instead of thirds if a third has fewer than 3
        events; None if a half has.
    """
    rows, notes = sample.rows, []
    time, event = rows.truth.reshape(-1, 2).T
    chosen = 0
    for num_groups in (3, 2):
        first, group = risk_groups(sample, num_groups)
        events = np.bincount(group, event[first], minlength=num_groups) if len(first) else np.zeros(num_groups)
        sizes = np.bincount(group, minlength=num_groups)
        if sizes.min() >= MIN_EVENTS and events.sum() >= num_groups * MIN_EVENTS:
            chosen = num_groups
            break
    if not chosen:
        return None, [
            f"There are no survival curves by risk: cases, events ({int(event.sum())}) or different risks are too few."
        ]
    if chosen == 2:
        notes.append("Survival curves are by halves of the predicted risk, not thirds, since events are few.")
    time, event = time[first], event[first]
    if sample.num_patients < len(first):
        notes.append("The log-rank test counts the cases of a patient as independent.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of lifelines with a newer pandas
        p = statistics.multivariate_logrank_test(time, group, event).p_value
    listed = [float(f"{t:.3g}") for t in np.linspace(0, time.max(), NUM_TIMES)]
    curves = [_curve(name, time[group == k], event[group == k], listed) for k, name in enumerate(NAMES[chosen])]
    ratio = _hazard_ratio(sample)
    if ratio["value"] is None:
        notes.append("The hazard ratio is undefined: the Cox model could not be fitted.")
    return {"groups": curves, "log_rank_p": number(p), "hazard_ratio": ratio}, notes


def _curve(name: str, time: Array, event: Array, listed: Sequence[float]) -> dict[str, Any]:
    fitter = lifelines.KaplanMeierFitter().fit(time, event)
    band = fitter.confidence_interval_
    return {
        "name": name,
        "num_cases": len(time),
        "num_events": int(event.sum()),
        "times": fitter.survival_function_.index.to_list(),
        "survival": fitter.survival_function_.iloc[:, 0].to_list(),
        "low": [number(value) for value in band.iloc[:, 0]],
        "high": [number(value) for value in band.iloc[:, 1]],
        "at_risk": [[t, int((time >= t).sum())] for t in listed],
    }


def _hazard_ratio(sample: CaseSample) -> dict[str, float | None]:
    """Fit a Cox model of the risk, standardized within folds, with errors that are robust to cases of one patient."""
    rows = sample.rows
    risk = np.zeros(len(rows))
    for fold in np.unique(rows.fold):
        mask = rows.fold == fold
        values = rows.output[mask, 0]
        risk[mask] = (values - values.mean()) / (values.std() or 1)
    time, event = rows.truth.reshape(-1, 2).T
    frame = pd.DataFrame({"risk": risk, "time": time, "event": event, "patient": rows.patient})
    undefined: dict[str, float | None] = dict.fromkeys(("value", "low", "high"))
    if risk.std() < 1e-9 or not event.any():
        return undefined
    unconverged = lifelines.exceptions.ConvergenceWarning, lifelines.exceptions.ConvergenceError
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", unconverged[0])
            fitter = lifelines.CoxPHFitter().fit(frame, "time", "event", cluster_col="patient")
    except (*unconverged, ValueError, np.linalg.LinAlgError):
        return undefined
    limits = np.exp(fitter.confidence_intervals_.to_numpy()[0])
    value = float(np.exp(fitter.params_.iloc[0]))
    return {"value": number(value), "low": number(limits[0]), "high": number(limits[1])}
