"""Curves agree with the metrics of the same cases, and with scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_curve, roc_auc_score

from monai_mil_ext.apps.study.report.case_sample import CaseSample
from monai_mil_ext.apps.study.report.curves import calibration_curve, calibration_line, score_curves
from monai_mil_ext.apps.study.report.task_values import main_measure

from .made import BINARY, study, table, two


def drawn(num_samples=50, **options):
    sample = CaseSample.draw(study("binary", **options), num_samples, 0)
    return sample, sample.rows.truth, sample.rows.output[:, 1]


@pytest.mark.parametrize("folds", [1, 5])
def test_the_area_of_the_roc_curve_is_the_auroc(folds):
    sample, y, p = drawn(num_cases=600, folds=folds)
    roc, _ = score_curves(sample, y, p)
    assert np.trapezoid(roc["tpr"], roc["fpr"]) == pytest.approx(main_measure(sample, BINARY).samples[0], abs=0.005)
    low, high = np.array(roc["low"]), np.array(roc["high"])
    assert (low <= high).all()
    assert ((low <= roc["tpr"]) & (roc["tpr"] <= high)).mean() > 0.95


def test_the_precision_at_a_recall_is_that_of_the_next_threshold():
    sample, y, p = drawn(folds=1)
    _, curve = score_curves(sample, y, p)
    precision, recall, _ = precision_recall_curve(y, p)
    for r, value in zip(curve["recall"][1:], curve["precision"][1:], strict=True):
        assert value == pytest.approx(precision[np.flatnonzero(recall >= r - 1e-12)[-1]])


def test_curves_of_one_class_are_empty():
    sample = CaseSample.draw(table([1, 1], two(np.zeros(2))), 5, 0)
    roc, curve = score_curves(sample, sample.rows.truth, sample.rows.output[:, 1])
    assert roc == {"fpr": [], "tpr": [], "low": [], "high": []}
    assert curve["precision"] == []


def test_bins_hold_equal_numbers_and_equal_probabilities_share_one():
    sample, y, p = drawn(num_cases=200)
    bins = calibration_curve(sample, y, p)
    assert [row["count"] for row in bins] == [20] * 10
    assert all(row["low"] <= row["observed"] <= row["high"] for row in bins)
    assert sum(row["observed"] * row["count"] for row in bins) == pytest.approx(y.sum())
    assert [row["predicted"] for row in bins] == sorted(row["predicted"] for row in bins)
    assert [row["count"] for row in calibration_curve(sample, y, np.full(200, 0.3))] == [200]
    assert calibration_curve(sample.restrict(sample.rows.fold < 0), y[:0], p[:0]) == []


def test_the_interval_of_a_bin_counts_patients():
    y, p = np.array([1, 1, 1, 1]), two(np.zeros(4))
    alone, together = (
        calibration_curve(CaseSample.draw(table(y, p, patient=patient), 5, 0), y, p[:, 1])[0]
        for patient in ([0, 1, 2, 3], [0, 0, 0, 1])
    )
    assert together["low"] < alone["low"]


def test_the_line_equals_scikit_learn_also_for_resamples():
    sample, y, p = drawn(num_samples=3, num_cases=200)
    x = np.log(p / (1 - p))[:, None]
    line = calibration_line(sample, y, p)
    fitted = LogisticRegression(C=1e9, tol=1e-10, max_iter=1000).fit(x, y)
    assert line["slope"]["value"] == pytest.approx(fitted.coef_[0, 0], abs=1e-4)
    assert line["intercept"]["value"] == pytest.approx(fitted.intercept_[0], abs=1e-4)
    slopes = [
        LogisticRegression(C=1e9, tol=1e-10, max_iter=1000).fit(x, y, sample_weight=w).coef_[0, 0]
        for w in sample.weights[1:]
    ]
    half = 1.96 * np.std(slopes, ddof=1) * np.sqrt(200 / 199)
    assert line["slope"]["high"] - line["slope"]["value"] == pytest.approx(half, abs=1e-3)


def test_the_slope_of_overconfident_probabilities_is_below_1():
    rng = np.random.default_rng(0)
    logit = rng.standard_normal(4000)
    y = (rng.random(4000) < 1 / (1 + np.exp(-logit))).astype(int)
    p = 1 / (1 + np.exp(-2 * logit - 1))
    sample = CaseSample.draw(table(y, np.stack([1 - p, p], axis=1)), 200, 0)
    line = calibration_line(sample, y, p)
    assert line["slope"]["low"] < 0.5 < line["slope"]["high"]
    assert line["intercept"]["low"] < -0.5 < line["intercept"]["high"]
    assert roc_auc_score(y, p) > 0.7


@pytest.mark.parametrize("p", [[0.1, 0.2, 0.8, 0.9], [0.3] * 4])
def test_a_line_that_cannot_be_fitted_is_undefined(p):
    y, p = np.array([0, 0, 1, 1]), np.array(p)
    sample = CaseSample.draw(table(y, np.stack([1 - p, p], axis=1)), 20, 0)
    assert calibration_line(sample, y, p)["slope"] == {"value": None, "low": None, "high": None}
