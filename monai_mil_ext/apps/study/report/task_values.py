"""Metrics of the test cases of a study for each kind of task, over all resamples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.apps.study.tasks import Task

from .case_sample import CaseSample, Measure
from .decisions import binary_values, confusion_counts, confusion_values, kappa
from .rankings import auroc, average_precision_parts, c_index, mean_of_finite, spearman
from .survival_values import integrated_brier

__all__ = ["class_measures", "confusion_samples", "decide", "main_measure", "main_metric", "task_measures"]

Array = NDArray[Any]
Thresholds = Mapping[int, Array]
NUM_BINS = 15


def main_metric(task: Task) -> str:
    """Return the name of the metric by which methods are compared.

    Example:
        >>> main_metric(Task("ordinal", ("low", "middle", "high")))
        'kappa'
    """
    return {"ordinal": "kappa", "regression": "r2", "survival": "c_index", "cox": "c_index"}.get(task.kind, "auroc")


def main_measure(sample: CaseSample, task: Task) -> Measure:
    """Compute the main metric alone, which no threshold decides."""
    rows = sample.rows
    if task.has_times:
        return _c_index(sample)
    if task.kind == "regression":
        return _determination(sample)
    if task.kind == "ordinal":
        return _kappa(sample, rows.output.argmax(axis=1), len(task.class_names))
    if task.kind == "multilabel":
        labels = [(rows.output[:, c], rows.truth[:, c]) for c in range(rows.output.shape[1])]
    else:
        labels = [(score, label) for score, label in _against_rest(rows.truth, rows.output)]
    return _mean_ranking(sample, labels)


def decide(sample: CaseSample, task: Task, thresholds: Thresholds) -> Array:
    """Return the predicted class (R,), or for ``"multilabel"`` whether each label is predicted (R, C).

    Of several classes it is the one with the highest probability; with two, and for labels, the threshold of the fold
    decides.
    """
    output = sample.rows.output
    if not (task.is_binary or task.kind == "multilabel"):
        return np.asarray(output.argmax(axis=1))
    num_limits = 1 if task.is_binary else len(task.class_names)
    limits = np.array([thresholds[int(fold)] for fold in sample.rows.fold]).reshape(len(output), num_limits)
    return np.asarray(output >= limits if task.kind == "multilabel" else output[:, 1] >= limits[:, 0]).astype(int)


def confusion_samples(sample: CaseSample, truth: Array, predicted: Array, num_classes: int) -> Array:
    """Return the mean over repeats of the confusion matrix (1 + S, C, C)."""
    counts = [
        confusion_counts(truth[mask], predicted[mask], sample.weights[:, mask], num_classes)
        for mask in (sample.rows.repeat == repeat for repeat in np.unique(sample.rows.repeat))
    ]
    return np.mean(counts, axis=0) if counts else np.zeros((len(sample.weights), num_classes, num_classes))


def _decision_values(
    sample: CaseSample, truth: Array, predicted: Array, num_classes: int, compute: Callable[[Array], dict[str, Array]]
) -> dict[str, Array]:
    """Return the mean over repeats of values (1 + S,) that are computed from the confusion matrix of each."""
    found = [
        compute(confusion_counts(truth[mask], predicted[mask], sample.weights[:, mask], num_classes))
        for mask in (sample.rows.repeat == repeat for repeat in np.unique(sample.rows.repeat))
    ] or [compute(confusion_samples(sample, truth, predicted, num_classes))]
    return {name: mean_of_finite(np.array([values[name] for values in found])) for name in found[0]}


def class_measures(sample: CaseSample, task: Task, thresholds: Thresholds) -> list[dict[str, Measure]]:
    """Compute the metrics of each class against the rest, or of each label; see :py:func:`task_measures`.

    Returns:
        For each class ``auroc``, ``auprc``, ``sensitivity``, ``specificity``, ``ppv`` and ``npv``.
    """
    truth, output, predicted = sample.rows.truth, sample.rows.output, decide(sample, task, thresholds)
    if task.kind == "multilabel":
        return [_label_measures(sample, truth[:, c], output[:, c], predicted[:, c]) for c in range(output.shape[1])]
    return [
        _label_measures(sample, (truth == c).astype(float), output[:, c], (predicted == c).astype(int))
        for c in range(len(task.class_names))
    ]


def _label_measures(sample: CaseSample, positive: Array, score: Array, predicted: Array) -> dict[str, Measure]:
    """Compute the metrics of a class or label from 1, 0 or NaN (unknown), its probability, and decisions."""
    known = np.isfinite(positive)
    y = positive == 1
    yes, no = sample.count_patients(known & y), sample.count_patients(known & ~y)
    of_known = sample.restrict(known)
    values = _decision_values(of_known, y[known], predicted[known], 2, binary_values)
    counts = {
        "sensitivity": yes,
        "specificity": no,
        "ppv": sample.count_patients(known & (predicted == 1)),
        "npv": sample.count_patients(known & (predicted == 0)),
    }
    return {
        "auroc": _auroc(sample, score, positive),
        "auprc": Measure(sample.ranking(average_precision_parts, score, y, known=known), num_patients=min(yes, no)),
        **{name: Measure(values[name], num_patients=count) for name, count in counts.items()},
    }


def task_measures(
    sample: CaseSample, task: Task, thresholds: Thresholds, classes: Sequence[Mapping[str, Measure]] = ()
) -> dict[str, Measure]:
    """Compute all metrics of a task over all resamples.

    Args:
        sample: the cases.
        task: the task.
        thresholds: threshold of each fold, see :py:func:`fold_thresholds`; empty for tasks without.
        classes: :py:func:`class_measures` of a task with classes; by default they are computed.

    Returns:
        Metrics by name.
    """
    if task.class_names and not classes:
        classes = class_measures(sample, task, thresholds)
    if task.has_times:
        return _survival(sample)
    if task.kind == "regression":
        return _regression(sample)
    of_task = _multilabel if task.kind == "multilabel" else _classes
    return of_task(sample, task, thresholds, classes)


def _classes(
    sample: CaseSample, task: Task, thresholds: Thresholds, classes: Sequence[Mapping[str, Measure]]
) -> dict[str, Measure]:
    """Compute the metrics of exclusive classes: two, several, or ordered ones."""
    truth, output, predicted = sample.rows.truth, sample.rows.output, decide(sample, task, thresholds)
    number = len(task.class_names)
    if task.is_binary:
        measures = dict(classes[1])
    elif task.kind == "ordinal":
        measures = {"auroc": _mean_ranking(sample, _boundaries(truth, output))}
    else:
        measures = {name: _mean_measure([one[name] for one in classes]) for name in ("auroc", "auprc")}
    decided = _decision_values(sample, truth, predicted, number, confusion_values)
    fewest = min([sample.count_patients(truth == c) for c in np.unique(truth)], default=0)
    measures |= {name: Measure(values, num_patients=fewest) for name, values in decided.items()}
    if task.kind == "ordinal":
        measures["kappa"] = _kappa(sample, predicted, number)
        measures["mae"] = Measure(sample.mean(np.abs(truth - predicted).astype(float)), "error")
    squared = np.square(output - np.eye(number)[truth.astype(int)]).sum(axis=1) / (2 if number == 2 else 1)
    measures["brier"] = Measure(sample.mean(squared), "share" if number == 2 else "squares")
    measures["ece"] = Measure(_ece(sample, output.max(axis=1), output.argmax(axis=1) == truth))
    return measures


def _kappa(sample: CaseSample, predicted: Array, number: int) -> Measure:
    def of_repeat(mask: Array) -> Array:
        return kappa(confusion_counts(sample.rows.truth[mask], predicted[mask], sample.weights[:, mask], number))

    return Measure(sample.over_repeats(of_repeat), "correlation")


def _against_rest(truth: Array, output: Array) -> list[tuple[Array, Array]]:
    """Return score and label of each class against the rest; of two, only of the second."""
    first = 1 if output.shape[1] == 2 else 0
    return [(output[:, c], truth == c) for c in range(first, output.shape[1])]


def _boundaries(truth: Array, output: Array) -> list[tuple[Array, Array]]:
    """Return score and label of "above class k" for each but the last of the ordered classes."""
    return [(output[:, k + 1 :].sum(axis=1), truth > k) for k in range(output.shape[1] - 1)]


def _mean_ranking(sample: CaseSample, ranked: list[tuple[Array, Array]]) -> Measure:
    """Return the mean AUROC over scores (R,) and labels (R,), NaN if unknown, of those that occur."""
    return _mean_measure([_auroc(sample, score, label) for score, label in ranked])


def _auroc(sample: CaseSample, score: Array, label: Array) -> Measure:
    count = min(sample.count_patients(label == 1), sample.count_patients(label == 0))
    return Measure(sample.ranking(auroc, score, label == 1, known=np.isfinite(label)), num_patients=count)


def _mean_measure(measures: Sequence[Measure]) -> Measure:
    """Return the mean over the classes that have a value; the smallest class decides."""
    counts = [measure.num_patients for measure in measures if measure.num_patients > 0]
    samples = mean_of_finite(np.array([measure.samples for measure in measures]))
    return Measure(samples, measures[0].scale, min(counts, default=float("nan")))


def _multilabel(
    sample: CaseSample, task: Task, thresholds: Thresholds, classes: Sequence[Mapping[str, Measure]]
) -> dict[str, Measure]:
    """Compute the metrics of each label, over the cases where it is known, and their means over labels."""
    rows, predicted = sample.rows, decide(sample, task, thresholds)
    labels: list[dict[str, Measure]] = []
    for c, one in enumerate(classes):
        mask = np.isfinite(rows.truth[:, c])
        known = sample.restrict(mask)
        y, p = known.rows.truth[:, c], known.rows.output[:, c]
        values = _decision_values(known, y, predicted[mask, c], 2, confusion_values)
        decided = {name: Measure(value) for name, value in values.items()}
        brier = Measure(known.mean(np.square(p - y)), "share")
        ece = Measure(_ece(known, np.maximum(p, 1 - p), (p > 0.5) == y))
        labels.append({**one, **decided, "brier": brier, "ece": ece})
    return {name: _mean_measure([label[name] for label in labels]) for name in labels[0]}


def _ece(sample: CaseSample, confidence: Array, correct: Array) -> Array:
    """Compute :py:func:`monai_mil_ext.metrics.expected_calibration_error` of each resample."""
    bins = np.clip(np.ceil(confidence * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
    gaps = np.eye(NUM_BINS)[bins] * (correct - confidence)[:, None]

    def of_repeat(mask: Array) -> Array:
        weights = sample.weights[:, mask]
        total = weights.sum(axis=1)
        error = np.abs(weights @ gaps[mask]).sum(axis=1)
        return np.divide(error, total, out=np.full(len(total), np.nan), where=total > 0)

    return sample.over_repeats(of_repeat)


def _regression(sample: CaseSample) -> dict[str, Measure]:
    truth, predicted = sample.rows.truth.astype(float), sample.rows.output[:, 0]
    error = truth - predicted
    return {
        "mae": Measure(sample.mean(np.abs(error)), "error"),
        "rmse": Measure(
            sample.over_repeats(lambda mask: np.sqrt(sample.mean(np.where(mask, error**2, np.nan)))), "error"
        ),
        "r2": _determination(sample),
        "spearman": Measure(sample.ranking(spearman, truth, predicted), "correlation"),
    }


def _determination(sample: CaseSample) -> Measure:
    """Compute the coefficient of determination, R²; undefined where all values are equal."""
    truth = sample.rows.truth.astype(float)
    error = truth - sample.rows.output[:, 0]

    def of_repeat(mask: Array) -> Array:
        weights, y = sample.weights[:, mask], truth[mask] - truth[mask].mean()
        total = weights.sum(axis=1)
        mean = np.divide(weights @ y, total, out=np.zeros(len(total)), where=total > 0)
        spread = weights @ (y * y) - total * mean**2
        defined = spread > 1e-12 * max(float((y * y).sum()), 1e-300)
        unexplained = np.divide(weights @ (error[mask] ** 2), spread, out=np.full(len(total), np.nan), where=defined)
        return np.asarray(1 - unexplained)

    return Measure(sample.over_repeats(of_repeat), "determination")


def _c_index(sample: CaseSample) -> Measure:
    time, event = sample.rows.truth.reshape(-1, 2).T
    events = sample.count_patients(event == 1)
    return Measure(sample.ranking(c_index, sample.rows.output[:, 0], time, event), num_patients=events)


def _survival(sample: CaseSample) -> dict[str, Measure]:
    rows = sample.rows
    time, event = rows.truth.reshape(-1, 2).T
    measures = {"c_index": _c_index(sample)}
    if rows.survival is not None and rows.times is not None:
        cases = np.full(len(rows), np.nan)
        for repeat in np.unique(rows.repeat):
            mask = rows.repeat == repeat
            cases[mask] = integrated_brier(rows.survival[mask], rows.times, time[mask], event[mask])
        measures["integrated_brier"] = Measure(sample.mean(cases), "error")
    return measures
