"""Tests of the models of clinical variables alone."""

import json

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, NelsonAalenFitter
from scipy.optimize import check_grad
from sklearn.linear_model import LogisticRegression

from monai_mil_ext.apps.study.clinical import ClinicalModel
from monai_mil_ext.apps.study.clinical.clinical_models import (
    PENALTIES,
    _cox_loss,
    baseline_hazard,
    cox_log_likelihood,
    fit_linear,
    inner_splits,
)

from .made_cohorts import TASKS, make_items


def made(kind, count=120, noise=False, columns=3):
    rng = np.random.default_rng(1)
    items, score = make_items(rng, count, kind, noise=noise)
    x = np.column_stack([score, rng.normal(5, 100, (count, columns - 1))])
    return x, TASKS[kind].truth(items), [item["patient"] for item in items]


@pytest.mark.parametrize("kind", TASKS)
def test_outputs_follow_the_task_and_json_keeps_them(kind):
    x, truth, patients = made(kind, 60)
    task, times = TASKS[kind], np.array([0.5, 1.0, np.inf]) if TASKS[kind].has_times else None
    model = ClinicalModel.fit(x, truth, patients, task, list("abc"), times)
    output, survival = model.predict(x, task)
    assert output.shape == (60, len(task.class_names) or 1)
    if task.kind in ("classification", "ordinal"):
        np.testing.assert_allclose(output.sum(axis=1), 1)
    if task.has_times:
        assert survival.shape == (60, 3)
        assert (np.diff(survival, axis=1) <= 0).all()
    read = ClinicalModel.from_json(json.loads(json.dumps(model.to_json())))
    np.testing.assert_array_equal(read.predict(x, task)[0], output)


def test_a_strong_variable_needs_little_penalty_and_noise_needs_much():
    strong, noise = (ClinicalModel.fit(*made("binary", noise=n), TASKS["binary"], list("abc")) for n in (False, True))
    assert strong.penalty < noise.penalty
    assert abs(strong.coefficients[1]).argmax() == 0


def test_the_binary_model_is_that_of_scikit_learn():
    x, truth, _ = made("binary")
    coefficients, intercept = fit_linear(x, truth, TASKS["binary"], 2.0)
    expected = LogisticRegression(C=0.5, max_iter=1000).fit(x, truth)
    np.testing.assert_allclose(coefficients[1] - coefficients[0], expected.coef_[0])
    np.testing.assert_allclose(intercept[1] - intercept[0], expected.intercept_[0])


def test_likelihood_and_hazard_are_those_of_lifelines():
    x, truth, _ = made("cox")
    frame = pd.DataFrame(np.column_stack([x[:, 0], truth]), columns=["x", "time", "event"])
    fitter = CoxPHFitter().fit(frame, "time", "event")
    risk = x[:, 0] * fitter.params_.iloc[0]
    assert np.nansum(cox_log_likelihood(risk, truth)) == pytest.approx(fitter.log_likelihood_)
    alone = NelsonAalenFitter().fit(truth[:, 0], truth[:, 1])
    times = np.array([0.1, 0.5, 2.0])
    expected = [float(alone.cumulative_hazard_.loc[:time].iloc[-1, 0]) for time in times]
    np.testing.assert_allclose(baseline_hazard(np.zeros(len(x)), truth, times), expected)


def test_the_cox_regression_is_that_of_lifelines_and_with_ties_of_statsmodels():
    x, truth, _ = made("cox")
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    frame = pd.DataFrame(np.column_stack([z, truth]), columns=["a", "b", "c", "time", "event"])
    expected = CoxPHFitter().fit(frame, "time", "event").params_
    np.testing.assert_allclose(fit_linear(z, truth, TASKS["cox"], 1e-9)[0][0], expected, atol=2e-4)
    z, truth = tied_times()
    np.testing.assert_allclose(fit_linear(z, truth, TASKS["cox"], 1e-9)[0][0], [0.98758, -0.595217], atol=2e-4)
    error = check_grad(lambda risk: _cox_loss(risk, truth)[0], lambda risk: _cox_loss(risk, truth)[1], z[:, 0])
    assert error < 1e-4


def tied_times():
    rng = np.random.default_rng(7)
    z = rng.normal(size=(60, 2))
    time = np.ceil(3 * rng.exponential(np.exp(-z @ [0.8, -0.4])))
    return z, np.column_stack([time, rng.random(60) < 0.7]).astype(float)


def test_tied_times_share_their_risk_set():
    truth = np.array([[1.0, 1], [1, 1], [2, 0]])
    np.testing.assert_allclose(cox_log_likelihood(np.zeros(3), truth), [-np.log(3), -np.log(3), np.nan])


@pytest.mark.parametrize("kind", TASKS)
def test_without_variables_or_outcomes_the_model_is_constant(kind):
    x, truth, patients = made(kind, 40)
    output, _ = ClinicalModel.fit(x[:, :0], truth, patients, TASKS[kind], []).predict(x[:, :0], TASKS[kind])
    assert np.ptp(output, axis=0).max() == 0
    truth = np.zeros_like(truth) + (truth[0] if kind == "regression" else 0)
    output, _ = ClinicalModel.fit(x, truth, patients, TASKS[kind], list("abc")).predict(x, TASKS[kind])
    assert np.isfinite(output).all()
    assert np.ptp(output, axis=0).max() < 1e-9


def test_a_class_that_training_lacks_is_improbable_but_possible():
    x, truth, patients = made("classes")
    model = ClinicalModel.fit(x, np.minimum(truth, 1), patients, TASKS["classes"], list("abc"))
    output = model.predict(x, TASKS["classes"])[0]
    assert 0 < output[:, 2].max() < 0.05


def test_the_inner_cross_validation_keeps_patients_together():
    _, truth, patients = made("binary")
    patients = [name[:-1] for name in patients]
    for train, test in inner_splits(truth, patients, TASKS["binary"]):
        assert {patients[i] for i in train} & {patients[i] for i in test} == set()
    assert list(inner_splits(truth[:3], ["p"] * 3, TASKS["binary"])) == []
    x, *_ = made("binary")
    assert ClinicalModel.fit(x, truth, ["p"] * 120, TASKS["binary"], list("abc")).penalty == PENALTIES[-1]
