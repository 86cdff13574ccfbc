"""Cases of the report of a study: rows sorted by error, and small pictures of the attention."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.apps.study.predictions import Predictions
from monai_mil_ext.apps.study.tasks import Task
from monai_mil_ext.utils import RESEARCH_USE, optional_dependency, quote_names
from monai_mil_ext.visualize.relative_attention import attention_ratio, ratio_colors

__all__ = ["case_errors", "case_picture", "case_rows"]

figure_module = optional_dependency("study", "matplotlib.figure")

Array = NDArray[Any]
ATTENTION = "#0072B2"
SIZE, DPI = (1.9, 1.25), 150


def case_rows(
    predictions: Mapping[str, Predictions], task: Task, method: str = "", instances: Mapping[str, int] | None = None
) -> list[dict[str, Any]]:
    """Return a row for each case with its predictions by all methods, sorted by the error of one of them.

    Predictions of several repeats are averaged.

    Args:
        predictions: predictions of each method; the part ``"test"`` is used.
        task: task of the study.
        method: method whose error sorts the rows; by default the first.
        instances: number of instances of each case.

    Returns:
        Rows of ``case_id``, ``patient``, ``site``, ``fold``, ``truth``, ``error``, ``outputs`` (by method) and
        ``num_instances``, the greatest error first and cases without one last.
    """
    chosen = method or next(iter(predictions))
    rows: dict[str, dict[str, Any]] = {}
    for name in (chosen, *(other for other in predictions if other != chosen)):
        test = predictions[name].of_part("test")
        errors = case_errors(test, task)
        for case, index in _rows_of_cases(test).items():
            row = rows.setdefault(case, _facts(test, task, index[0]))
            row["outputs"][name] = _output(_mean(test.output[index]), task)
            if name == chosen:
                row["error"] = _known(_mean(errors[index]))
            if instances is not None:
                row["num_instances"] = instances.get(case)
    return by_error(list(rows.values()))


def _rows_of_cases(test: Predictions) -> dict[str, list[int]]:
    index: dict[str, list[int]] = {}
    for i, case in enumerate(test.case_id):
        index.setdefault(case, []).append(i)
    return index


def _facts(test: Predictions, task: Task, i: int) -> dict[str, Any]:
    texts = {"case_id": test.case_id[i], "patient": test.patient[i], "site": test.site[i], "fold": int(test.fold[i])}
    return {**texts, "truth": _truth(test.truth[i], task), "error": None, "outputs": {}}


def _truth(truth: Any, task: Task) -> Any:
    """Return a label in words, or the value of a regression."""
    if task.has_times:
        return f"{'event' if truth[1] else 'censored'} at {float(truth[0]):.4g}"
    if task.kind == "multilabel":
        unknown = f", {int(np.isnan(truth).sum())} unknown" if np.isnan(truth).any() else ""
        return (" + ".join(np.array(quote_names(task.class_names))[truth == 1]) or "none") + unknown
    return float(truth) if task.kind == "regression" else task.class_names[int(truth)]


def _output(output: Array, task: Task) -> Any:
    """Return the probability of the second of two classes, a value or risk, or the predicted classes in words."""
    if task.is_binary or (len(output) == 1 and task.kind != "multilabel"):
        return _known(output[-1])
    if np.isnan(output).any():
        return None
    if task.kind == "multilabel":
        return ", ".join(f"{name} {p:.2f}" for name, p in zip(quote_names(task.class_names), output, strict=True))
    return f"{task.class_names[int(output.argmax())]} ({output.max():.2f})"


def _mean(values: Array) -> Any:
    return np.asarray(values, dtype=float).mean(axis=0)


def _known(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def case_errors(predictions: Predictions, task: Task) -> Array:
    """Return the error of each row (R,), NaN where it is unknown.

    It is one minus the probability of the true class, the distance of the expected from the true class (ordinal), the
    mean over the known labels (multilabel), the absolute difference (regression), or the part of the comparable cases
    of the same fold that are ranked wrongly (survival).

    Example:
        >>> rows = {"case_id": ["a", "b"], "patient": ["a", "b"], "site": ["", ""], "part": ["test", "test"]}
        >>> rows |= {"repeat": np.zeros(2, int), "fold": np.zeros(2, int), "truth": np.array([0, 1])}
        >>> given = Predictions(**rows, output=np.array([[0.75, 0.25], [1.0, 0.0]]))
        >>> case_errors(given, Task("classification", ("no", "yes"))).tolist()
        [0.25, 1.0]
    """
    truth, output = predictions.truth, predictions.output
    if task.has_times:
        return _misranked(predictions)
    if task.kind == "regression":
        return np.abs(truth - output[:, 0])
    if task.kind == "multilabel":
        difference = np.ma.masked_invalid(np.abs(truth - output))
        return np.asarray(difference.mean(axis=1).filled(np.nan), dtype=float)
    if task.kind == "ordinal":
        return np.abs(output @ np.arange(output.shape[1]) - truth)
    return 1 - output[np.arange(len(truth)), truth.astype(int)]


def _misranked(predictions: Predictions) -> Array:
    """Return for each case the part of its comparable cases that its risk ranks wrongly; ties count half."""
    time, event, risk = predictions.truth[:, 0], predictions.truth[:, 1] > 0, predictions.output[:, 0]
    errors = np.full(len(time), np.nan)
    for fold in np.unique(predictions.fold):
        rows = np.flatnonzero(predictions.fold == fold)
        t, e, r = time[rows], event[rows], risk[rows]
        first = e[:, None] & (t[:, None] < t[None, :])  # the row's event is before the column's time
        wrong = np.where(r[:, None] < r[None, :], 1.0, np.where(r[:, None] == r[None, :], 0.5, 0.0)) * first
        count = first.sum(0) + first.sum(1)
        with np.errstate(invalid="ignore"):
            errors[rows] = np.where(np.isfinite(r) & (count > 0), (wrong.sum(0) + wrong.sum(1)) / count, np.nan)
    return errors


def case_picture(attention: Array, position: Array | None = None, coords: Array | None = None) -> bytes:
    """Draw the attention of a case as a small PNG: along its slices, or as a map of its tiles.

    Args:
        attention: attention weights (N,), which sum to 1.
        position: positions (N,) of slices along the normal in mm; by default instances are numbered.
        coords: coordinates (N, 2) of tiles, as x and y, which are drawn if there are no positions.

    Raises:
        ValueError: if the arrays differ in length.
    """
    attention = np.asarray(attention, dtype=float).ravel()
    coords = None if position is not None else coords
    places = coords if coords is not None else np.arange(len(attention)) if position is None else position
    places = np.asarray(places, dtype=float)
    if len(places) != len(attention):
        raise ValueError(f"`attention` must have a weight for each place, got {len(attention)} for {len(places)}.")
    figure = figure_module.Figure(figsize=SIZE)
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.98) if coords is not None else (0.2, 0.25, 0.77, 0.71))
    ratio = attention_ratio(attention)
    if coords is None:
        _draw_slices(axes, ratio, places, "mm" if position is not None else "instance")
    else:
        _draw_tiles(axes, ratio, places)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Description": RESEARCH_USE, "Software": None})
    return buffer.getvalue()


def _draw_slices(axes: Any, ratio: Array, position: Array, unit: str) -> None:
    order = np.argsort(position)
    axes.fill_between(position[order], ratio[order], step="mid", color=ATTENTION, alpha=0.35, linewidth=0)
    axes.plot(position[order], ratio[order], drawstyle="steps-mid", color=ATTENTION, linewidth=1)
    axes.axhline(1, color="#666666", linewidth=0.7, linestyle=":")
    axes.set(ylim=(0, max(2.0, 1.05 * np.nan_to_num(ratio).max(initial=0))))
    axes.set_xlabel(unit, fontsize=7, labelpad=1)
    axes.set_ylabel("× uniform", fontsize=7, labelpad=1)
    axes.tick_params(labelsize=7, length=2, pad=1)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_tiles(axes: Any, ratio: Array, coords: Array) -> None:
    """Draw tiles as squares of their spacing, in the colors of attention relative to uniform."""
    extent = np.ptp(coords, axis=0).clip(1e-9) if len(coords) else np.ones(2)
    steps = np.concatenate([np.diff(np.unique(coords[:, k])) for k in range(2)]) if len(coords) else np.ones(1)
    step = float(np.min(steps[steps > 0], initial=extent.max()))
    width = (SIZE[0] * 72 * 0.9) * step / max(extent[0] + step, (extent[1] + step) * SIZE[0] / SIZE[1])
    axes.scatter(*coords.T, c=ratio_colors(ratio) / 255, marker="s", s=max(width, 0.6) ** 2, linewidths=0)
    axes.set_aspect("equal")
    axes.margins(0.03)
    axes.invert_yaxis()
    axes.axis("off")


def by_error(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with the greatest error first, and those without an error last."""

    def key(row: Mapping[str, Any]) -> tuple[bool, float, str]:
        error = row.get("error")
        is_known = error is not None and bool(np.isfinite(error))
        return not is_known, -float(error) if error is not None and is_known else 0.0, str(row.get("case_id", ""))

    return [dict(row) for row in sorted(rows, key=key)]
