"""Summary of a method: metrics with intervals, folds, classes, sites, curves, calibration, survival, attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.apps.study.predictions import Predictions
from monai_mil_ext.apps.study.tasks import Task

from .attention_values import attention_stability, attention_summary
from .case_sample import CaseSample, Measure, finite_rows
from .curves import calibration_curve, calibration_line, score_curves
from .decisions import fold_thresholds
from .intervals import number
from .rankings import auroc
from .set_values import set_summary
from .survival_values import survival_summary
from .task_values import class_measures, confusion_samples, decide, main_measure, main_metric, task_measures

__all__ = ["summarize_method"]

Array = NDArray[Any]
FEW_PATIENTS = 20


def summarize_method(
    predictions: Predictions,
    task: Task,
    num_samples: int = 1000,
    seed: int = 0,
    thresholds: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Summarize the predictions of a method on the test parts of a study, as JSON.

    AUROC, average precision, C-index and rank correlation count pairs of cases, or cases, of the same fold and repeat:
    predictions of different networks are never ranked together. Other metrics are over all cases of a repeat. With
    several repeats, a value is the mean over them. Intervals are at 95 %, by a bootstrap of patients over all folds,
    for the networks as they were trained: the variation between trainings is not part of them.

    Args:
        predictions: rows of the parts ``"test"`` and ``"val"``.
        task: the task.
        num_samples: number of bootstrap samples.
        seed: random seed of the bootstrap.
        thresholds: ``thresholds`` of another summary, whose mean is applied to all cases, as in an external cohort. By
            default each fold has the threshold of Youden's index on its validation part.

    Returns:
        ``num_cases``, ``num_patients``, ``num_folds``, ``num_repeats``; ``values`` (each ``value``, ``low``,
        ``high``), ``main`` (name of the main metric), ``folds``, ``sites``, ``attention``, ``localization``, ``sets``
        with a guarantee, ``notes`` (a sentence for each value that is undefined or limited); with classes ``classes``,
        ``confusion``, ``calibration``, ``roc``, ``pr``, ``roc_classes``, ``pr_classes``, ``thresholds``; ``scatter`` of
        a regression; ``survival``; ``boundaries`` of ordered classes. Undefined values are None.

    Example:
        >>> rows = Predictions(list("abcd"), list("abcd"), [""] * 4, np.zeros(4, int), np.zeros(4, int), ["test"] * 4,
        ...                    np.array([0, 1, 0, 1]), np.array([[0.9, 0.1], [0.3, 0.7], [0.6, 0.4], [0.7, 0.3]]))
        >>> summary = summarize_method(rows, Task("classification", ("benign", "malignant")), num_samples=100)
        >>> summary["main"], summary["values"]["auroc"]["value"], summary["confusion"]
        ('auroc', 0.75, [[2, 0], [1, 1]])
    """
    sample = CaseSample.draw(predictions, num_samples, seed)
    limits: dict[int, Array] = {}
    notes = _notes(predictions, sample)
    if task.is_binary or task.kind == "multilabel":
        limits, more = _frozen(predictions, thresholds) if thresholds else fold_thresholds(predictions)
        notes += more if len(sample.rows) else []
    classes = class_measures(sample, task, limits) if task.class_names else []
    measures = task_measures(sample, task, limits, classes)
    main = main_metric(task)
    estimates = {name: sample.estimate(measure) for name, measure in measures.items()}
    folds = _folds(sample, task, limits)
    summary, more = _parts(sample, task, limits, classes)
    counted = {
        "num_cases": len(set(sample.rows.case_id)),
        "num_patients": sample.num_patients,
        "num_folds": len(np.unique(sample.rows.fold)),
        "num_repeats": len(np.unique(sample.rows.repeat)),
    }
    notes += more + _undefined(estimates, folds, main, sample.num_patients > 1)
    if summary["attention"]:
        summary["attention"] |= attention_stability(CaseSample.draw(predictions, num_samples, seed, "val"))
    return {**counted, "values": estimates, "main": main, "folds": folds, **summary, "notes": notes}


def _parts(
    sample: CaseSample, task: Task, limits: Mapping[int, Array], classes: Sequence[Mapping[str, Measure]]
) -> tuple[dict[str, Any], list[str]]:
    """Return all but the values and those of folds: sites, thresholds, curves, attention; and notes."""
    attention, localization = attention_summary(sample)
    parts: dict[str, Any] = {
        "sites": _sites(sample, task, main_metric(task)),
        "thresholds": _threshold_rows(task, limits),
        "attention": attention,
        "localization": localization,
        "sets": set_summary(sample),
        **_parts_of_classes(sample, task, limits, classes),
    }
    notes: list[str] = []
    if task.kind == "regression":
        truth = sample.rows.truth.astype(float).tolist()
        parts["scatter"] = {"truth": truth, "predicted": sample.rows.output[:, 0].tolist()}
    if task.has_times:
        parts["survival"], notes = survival_summary(sample)
    return parts, notes


def _notes(predictions: Predictions, sample: CaseSample) -> list[str]:
    """Return sentences on cases that are missing and on few patients."""
    test = predictions.of_part("test")
    notes, lost = [], len(test) - len(sample.rows)
    if lost:
        folds = sorted({int(fold) for fold in test.fold[~finite_rows(test)]})
        where = f"fold{'s' * (len(folds) > 1)} {', '.join(map(str, folds))}"
        notes.append(f"{lost} of {len(test)} predictions are not finite and are left out (of {where}).")
    if not len(sample.rows):
        notes.append("There are no predictions of test cases.")
    elif all(np.ptp(sample.rows.output[sample.rows.fold == k], axis=0).max() == 0 for k in np.unique(sample.rows.fold)):
        notes.append("All predictions of a fold are equal, so they do not rank cases.")
    if sample.num_patients == 1:
        notes.append("There are no intervals: all cases are of one patient.")
    elif 1 < sample.num_patients < FEW_PATIENTS:
        notes.append(f"Intervals are rough: there are only {sample.num_patients} patients.")
    return notes


def _undefined(
    estimates: Mapping[str, Any], folds: Sequence[Mapping[str, Any]], main: str, resampled: bool
) -> list[str]:
    """Return sentences on metrics and intervals that are undefined."""
    notes = []
    missing = [name for name, estimate in estimates.items() if estimate["value"] is None]
    if missing:
        notes.append(f"Undefined for these cases: {', '.join(missing)}.")
    bare = [name for name, row in estimates.items() if row["value"] is not None and row["low"] is None]
    if bare and resampled:
        notes.append(f"Without interval, since the value is at its limit or rarely defined: {', '.join(bare)}.")
    empty = [str(row["fold"]) for row in folds if row[main] is None]
    if empty and main not in missing:
        which = f"Folds {', '.join(empty)} have" if len(empty) > 1 else f"Fold {empty[0]} has"
        notes.append(f"{which} no {main}: the labels do not vary there.")
    return notes


def _frozen(predictions: Predictions, thresholds: Sequence[Mapping[str, Any]]) -> tuple[dict[int, Array], list[str]]:
    """Return the mean of other folds' thresholds, by label, for every fold."""
    labels = list(dict.fromkeys(row.get("label") for row in thresholds))
    means = [np.mean([row["threshold"] for row in thresholds if row.get("label") == label]) for label in labels]
    return {int(fold): np.array(means) for fold in np.unique(predictions.fold)}, []


def _threshold_rows(task: Task, limits: Mapping[int, Array]) -> list[dict[str, Any]]:
    if task.kind != "multilabel":
        return [{"fold": fold, "threshold": float(values[0])} for fold, values in limits.items()]
    named = [(fold, zip(task.class_names, values, strict=True)) for fold, values in limits.items()]
    return [{"fold": f, "label": name, "threshold": float(value)} for f, pairs in named for name, value in pairs]


def _folds(sample: CaseSample, task: Task, limits: Mapping[int, Array]) -> list[dict[str, Any]]:
    """Return the metrics of each fold, without intervals."""
    folds = []
    for fold in np.unique(sample.rows.fold):
        part = sample.restrict(sample.rows.fold == fold, resample=False)
        values = {name: number(m.samples[0]) for name, m in task_measures(part, task, limits).items()}
        row = {"fold": int(fold), "repeat": int(part.rows.repeat[0]), "num_cases": len(part.rows)}
        folds.append({**row, **values})
    return folds


def _sites(sample: CaseSample, task: Task, main: str) -> list[dict[str, Any]]:
    """Return the main metric of each site; pairs are of the same site and fold."""
    site = np.asarray(sample.rows.site, dtype=str)
    names = sorted(set(site.tolist()))
    sites = []
    for name in names if len(names) > 1 or any(names) else []:
        part = sample.restrict(site == name)
        row: dict[str, Any] = {"name": name or "unknown", "num_cases": len(set(part.rows.case_id))}
        if task.is_binary:
            row["num_positive"] = part.count_cases(part.rows.truth == 1)
        sites.append({**row, main: part.estimate(main_measure(part, task))})
    return sites


def _parts_of_classes(
    sample: CaseSample, task: Task, limits: Mapping[int, Array], classes: Sequence[Mapping[str, Measure]]
) -> dict[str, Any]:
    """Return what only tasks with classes have: metrics a class, confusion matrix, curves, calibration."""
    if not classes or not len(sample.rows):
        return {}
    rows, names = sample.rows, task.class_names
    parts: dict[str, Any] = {}
    truth = rows.truth if task.kind == "multilabel" else np.eye(len(names))[rows.truth.astype(int)]
    parts["classes"] = [
        {"name": name, "num_cases": sample.count_cases(label == 1)}
        | {key: sample.estimate(measure) for key, measure in measures.items()}
        for name, label, measures in zip(names, truth.T, classes, strict=True)
    ]
    curves = {}
    for c, name in enumerate(names):
        if c == 1 or not task.is_binary:
            known = np.isfinite(truth[:, c])
            curves[name] = score_curves(sample.restrict(known), truth[known, c] == 1, rows.output[known, c])
    if task.is_binary:
        parts["roc"], parts["pr"] = curves.pop(names[1])
    parts["roc_classes"] = {name: roc for name, (roc, _) in curves.items()}
    parts["pr_classes"] = {name: pr for name, (_, pr) in curves.items()}
    if task.kind != "multilabel":
        one = sample.restrict(sample.everywhere, resample=False)
        (counts,) = confusion_samples(one, rows.truth, decide(sample, task, limits), len(names))
        parts["confusion"] = [[int(v) if v == int(v) else float(v) for v in row] for row in counts]
    if task.kind == "ordinal":
        parts["boundaries"] = _boundaries(sample, names)
    return {**parts, "calibration": _calibration(sample, task)}


def _boundaries(sample: CaseSample, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the AUROC of "above a class" for each but the last of the ordered classes."""
    rows = []
    for k, name in enumerate(names[:-1]):
        above = sample.rows.truth > k
        samples = sample.ranking(auroc, sample.rows.output[:, k + 1 :].sum(axis=1), above)
        count = min(sample.count_patients(above), sample.count_patients(~above))
        rows.append({"name": f"above {name}", "auroc": sample.estimate(Measure(samples, num_patients=count))})
    return rows


def _calibration(sample: CaseSample, task: Task) -> dict[str, Any]:
    """Return the calibration of the positive class, of all labels, or of the predicted class of several."""
    truth, output = sample.rows.truth, sample.rows.output
    if task.is_binary:
        part, y, p = sample, truth, output[:, 1]
    elif task.kind == "multilabel":
        known = np.isfinite(truth)
        part = sample.restrict(np.nonzero(known)[0])
        y, p = truth[known], output[known]
    else:
        part, y, p = sample, (output.argmax(axis=1) == truth).astype(int), output.max(axis=1)
    return {"bins": calibration_curve(part, y, p), **calibration_line(part, y, p)}
