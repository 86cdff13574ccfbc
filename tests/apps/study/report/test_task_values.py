"""Metrics of each task equal scikit-learn on one fold, also of resamples."""

import numpy as np
import pytest
from lifelines.utils import concordance_index
from scipy.stats import spearmanr
from sklearn import metrics

from monai_mil_ext.apps.study.report.case_sample import CaseSample
from monai_mil_ext.apps.study.report.decisions import fold_thresholds
from monai_mil_ext.apps.study.report.intervals import as_estimate
from monai_mil_ext.apps.study.report.task_values import decide, main_measure, main_metric, task_measures
from monai_mil_ext.metrics import bag_values, brier_score, expected_calibration_error

from .made import TASKS, study


def drawn(kind, **options):
    """Return a sample, its metrics, and for each resample the rows of all copies."""
    predictions, task = study(kind, **options), TASKS[kind]
    sample = CaseSample.draw(predictions, 3, 0)
    limits = fold_thresholds(predictions)[0] if kind in ("binary", "multilabel") else {}
    copies = [sample.rows.select(np.repeat(np.arange(len(sample.rows)), w.astype(int))) for w in sample.weights]
    values = {name: measure.samples for name, measure in task_measures(sample, task, limits).items()}
    return sample, values, copies, limits


def check(values, expected, index):
    for name, value in expected.items():
        assert values[name][index] == pytest.approx(value, abs=1e-6 if name == "ece" else 1e-12)  # in bins of float32


@pytest.mark.parametrize("kind", ["binary", "classification"])
def test_values_of_classes(kind):
    _, values, copies, limits = drawn(kind, folds=1)
    for index, rows in enumerate(copies):
        known = bag_values(rows.truth, rows.output)
        expected = {"auroc": known["bag_auroc"], "auprc": known["bag_auprc"]}
        expected |= {
            "brier": brier_score(rows.truth, rows.output),
            "ece": expected_calibration_error(rows.truth, rows.output),
        }
        predicted = rows.output.argmax(axis=1) if kind != "binary" else rows.output[:, 1] >= limits[0][0]
        expected |= {
            "accuracy": metrics.accuracy_score(rows.truth, predicted),
            "macro_f1": metrics.f1_score(rows.truth, predicted, average="macro"),
        }
        check(values, expected, index)
    assert ("sensitivity" in values) == (kind == "binary")


@pytest.mark.parametrize(("kind", "highest"), [("binary", 1), ("classification", 2), ("multilabel", 1)])
def test_the_interval_of_a_large_brier_score_ends_at_its_maximum(kind, highest):
    predictions, task = study(kind, num_cases=12, folds=1), TASKS[kind]
    predictions.output[:] = np.eye(len(task.class_names))[0] if kind != "multilabel" else 1.0
    limits = fold_thresholds(predictions)[0] if kind != "classification" else {}
    measure = task_measures(CaseSample.draw(predictions, 200, 0), task, limits)["brier"]
    found = as_estimate(measure.samples, 12, measure.scale)
    assert 0.1 < found["low"] < found["value"] < found["high"] < highest


def test_values_of_labels_are_means_over_labels_where_they_are_known():
    _, values, copies, _ = drawn("multilabel", folds=1)
    for index, rows in enumerate(copies):
        columns = [(y[np.isfinite(y)], p[np.isfinite(y)]) for y, p in zip(rows.truth.T, rows.output.T, strict=True)]
        pairs = [np.stack([1 - p, p], axis=1) for _, p in columns]
        expected = {
            "auroc": np.mean([metrics.roc_auc_score(y, p) for y, p in columns]),
            "auprc": np.mean([metrics.average_precision_score(y, p) for y, p in columns]),
            "brier": np.mean([metrics.brier_score_loss(y, p) for y, p in columns]),
            "ece": np.mean([expected_calibration_error(y, p) for (y, _), p in zip(columns, pairs, strict=True)]),
        }
        check(values, expected, index)


def test_values_of_ordered_classes():
    _, values, copies, _ = drawn("ordinal", folds=1)
    for index, rows in enumerate(copies):
        predicted = rows.output.argmax(axis=1)
        above = [metrics.roc_auc_score(rows.truth > k, rows.output[:, k + 1 :].sum(axis=1)) for k in (0, 1)]
        expected = {
            "kappa": metrics.cohen_kappa_score(rows.truth, predicted, weights="quadratic"),
            "mae": np.abs(rows.truth - predicted).mean(),
            "auroc": np.mean(above),
        }
        check(values, expected, index)


def test_values_of_a_regression():
    _, values, copies, _ = drawn("regression", folds=1)
    for index, rows in enumerate(copies):
        y, p = rows.truth, rows.output[:, 0]
        expected = {
            "mae": metrics.mean_absolute_error(y, p),
            "rmse": metrics.root_mean_squared_error(y, p),
            "r2": metrics.r2_score(y, p),
            "spearman": spearmanr(y, p).statistic,
        }
        check(values, expected, index)


@pytest.mark.parametrize("kind", ["survival", "cox"])
def test_values_of_survival(kind):
    _, values, copies, _ = drawn(kind, folds=1)
    for index, rows in enumerate(copies):
        time, event = rows.truth.T
        check(values, {"c_index": concordance_index(time, -rows.output[:, 0], event)}, index)
    assert ("integrated_brier" in values) == (kind == "survival")


@pytest.mark.parametrize("kind", TASKS)
def test_the_main_metric_alone_is_that_of_all(kind):
    sample, values, _, _ = drawn(kind, repeats=2)
    main = main_measure(sample, TASKS[kind])
    np.testing.assert_array_equal(main.samples, values[main_metric(TASKS[kind])])


@pytest.mark.parametrize("kind", TASKS)
def test_values_of_several_repeats_are_their_means(kind):
    sample, values, _, limits = drawn(kind, repeats=3)
    alone = [task_measures(sample.restrict(sample.rows.repeat == repeat), TASKS[kind], limits) for repeat in range(3)]
    for name, found in values.items():
        expected = np.mean([measures[name].samples for measures in alone], axis=0)
        np.testing.assert_allclose(found, expected, rtol=1e-9, err_msg=name)


def test_predictions_of_networks_are_not_ranked_together():
    """Each fold has another monotone calibration, which changes no rank within it."""
    predictions, task = study("binary"), TASKS["binary"]
    p = predictions.output[:, 1] ** (1 + predictions.fold)
    predictions.output[:] = np.stack([1 - p, p], axis=1)
    same = main_measure(CaseSample.draw(study("binary"), 5, 0), task).samples
    np.testing.assert_array_equal(main_measure(CaseSample.draw(predictions, 5, 0), task).samples, same)


def test_decisions_take_the_threshold_of_the_fold():
    predictions, task = study("binary"), TASKS["binary"]
    sample = CaseSample.draw(predictions, 2, 0)
    everything = {k: np.array([0.0 if k == 2 else 1.1]) for k in range(5)}
    assert (decide(sample, task, everything) == (sample.rows.fold == 2)).all()


@pytest.mark.parametrize("kind", ["binary", "classification", "multilabel"])
def test_the_interval_of_a_calibration_error_stays_below_one(kind):
    predictions = study(kind, num_cases=24, folds=2)
    limits = {} if kind == "classification" else fold_thresholds(predictions)[0]
    ece = task_measures(CaseSample.draw(predictions, 200, 0), TASKS[kind], limits)["ece"]
    samples = np.concatenate([[0.01], ece.samples[1:]])  # a small value whose resamples are far larger
    assert as_estimate(samples, 24, ece.scale)["high"] <= 1
