"""Tests of clinical variables in the folds of a study."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from monai_mil_ext.apps.study.clinical import Clinical, apply_values, fit_fold
from monai_mil_ext.apps.study.clinical.clinical_folds import _combine
from monai_mil_ext.apps.study.clinical.late_fusion import LateFusion

from .made_cohorts import BINARY, TASKS, make_bag, make_items


def made_fold(kind="binary", seed=0, noise=False, sizes=(100, 40, 60), hidden=1.0):
    """Return training, validation and test items, and the predictions of a made network for the last two."""
    rng, (train, val, test) = np.random.default_rng(seed), sizes
    items, score = make_items(rng, sum(sizes), kind, noise=noise, hidden=hidden)
    scores = rng.normal(size=len(items)) if noise else score + rng.normal(0, 0.5, len(items))
    parts = ["val"] * val + ["test"] * test
    bag = make_bag(rng, items[train:], parts, TASKS[kind], scores[train:])
    return items[:train], items[train : train + val], items[train + val :], bag


@pytest.mark.parametrize("kind", TASKS)
def test_each_task_gets_predictions_by_clinical_variables_and_by_both(kind):
    *parts, bag = made_fold(kind, sizes=(60, 20, 20))
    fold = fit_fold(Clinical(("age", "sex", "grade")), *parts, TASKS[kind], bag)
    assert list(fold.predictions) == ["clinical", "both"]
    for rows in fold.predictions.values():
        assert rows.case_id == bag.case_id
        assert rows.part == bag.part
        assert rows.output.shape == bag.output.shape
        assert np.isfinite(rows.output).all()
        np.testing.assert_array_equal(rows.truth, bag.truth)
        assert (rows.survival is None) == (bag.survival is None)
        if rows.survival is not None:
            assert ((rows.survival >= 0) & (rows.survival <= 1)).all()
            assert (np.diff(rows.survival, axis=1) <= 1e-12).all()
        if kind in ("binary", "classes", "ordinal"):
            np.testing.assert_allclose(rows.output.sum(axis=1), 1)
    assert any("does not use their order" in note for note in fold.notes) == (kind == "ordinal")


def test_both_are_better_than_each_when_each_knows_something():
    values = {"bag": [], "clinical": [], "both": []}
    for seed in range(5):
        *parts, bag = made_fold(seed=seed, sizes=(150, 50, 300))
        for name, rows in {"bag": bag, **fit_fold(Clinical(), *parts, BINARY, bag).predictions}.items():
            test = rows.of_part("test")
            values[name].append(roc_auc_score(test.truth, test.output[:, 1]))
    means = {name: np.mean(scores) for name, scores in values.items()}
    assert means["both"] > max(means["bag"], means["clinical"]) + 0.02


def test_labels_that_are_noise_give_chance():
    values = {"bag": [], "clinical": [], "both": []}
    for seed in range(16):
        *parts, bag = made_fold(seed=seed, noise=True, sizes=(60, 30, 100))
        for name, rows in {"bag": bag, **fit_fold(Clinical(), *parts, BINARY, bag).predictions}.items():
            test = rows.of_part("test")
            values[name].append(roc_auc_score(test.truth, test.output[:, 1]))
    for scores in values.values():
        assert abs(np.mean(scores) - 0.5) < 3 * np.std(scores, ddof=1) / np.sqrt(len(scores))


@pytest.mark.parametrize("kind", ["binary", "regression", "cox"])
def test_no_label_of_the_test_part_is_used(kind):
    train, val, test, bag = made_fold(kind, sizes=(50, 20, 20))
    rows = np.arange(len(bag)) >= 20
    changed = bag.truth.copy()
    changed[rows] = changed[rows][::-1] + (7 if kind == "regression" else 0)
    first = fit_fold(Clinical(("age", "sex")), train, val, test, TASKS[kind], bag)
    hidden = [{key: item[key] for key in ("case_id", "patient", "covariates")} for item in test]
    second = fit_fold(Clinical(("age", "sex")), train, val, hidden, TASKS[kind], replace(bag, truth=changed))
    assert first.values == second.values
    for name, rows_of in first.predictions.items():
        np.testing.assert_array_equal(rows_of.output, second.predictions[name].output)


@pytest.mark.parametrize("kind", ["binary", "multilabel", "survival"])
def test_saved_values_predict_the_same(kind):
    *parts, bag = made_fold(kind, sizes=(50, 20, 20))
    fold = fit_fold(Clinical(("age", "sex")), *parts, TASKS[kind], bag)
    values = json.loads(json.dumps(fold.values))
    again = apply_values(values, [*parts[1], *parts[2]], TASKS[kind], bag)
    for name, rows in fold.predictions.items():
        np.testing.assert_array_equal(again[name].output, rows.output)
        if rows.survival is not None:
            np.testing.assert_array_equal(again[name].survival, rows.survival)


def test_an_external_cohort_may_lack_variables_and_labels_of_categories():
    *parts, bag = made_fold(sizes=(50, 20, 20))
    values = fit_fold(Clinical(), *parts, BINARY, bag).values
    strangers = [{"case_id": name, "covariates": {"grade": "IV"}} for name in bag.case_id]
    assert np.isfinite(apply_values(values, strangers, BINARY, bag)["both"].output).all()


def test_variables_that_are_all_left_out_leave_the_order_of_the_bag():
    *parts, bag = made_fold(sizes=(50, 20, 20))
    items = [[{**item, "covariates": {"centre": "A"}} for item in part] for part in parts]
    fold = fit_fold(Clinical(), *items, BINARY, bag)
    assert np.ptp(fold.predictions["clinical"].output, axis=0).max() == 0
    order = np.argsort(bag.output[:, 1])
    np.testing.assert_array_equal(np.argsort(fold.predictions["both"].output[:, 1]), order)
    assert fold.notes[0].startswith("The clinical variable 'centre' was left out")
    again = apply_values(json.loads(json.dumps(fold.values)), items[1] + items[2], BINARY, bag)
    np.testing.assert_array_equal(again["both"].output, fold.predictions["both"].output)


def test_kinds_are_those_of_the_whole_cohort_in_each_fold():
    train, val, test, bag = made_fold(sizes=(50, 20, 20))
    for index, item in enumerate([*train, *val, *test]):
        item["covariates"] |= {"grade": str(1 + index % 2 if index < 50 else index % 5), "code": str(index % 4)}
    clinical = Clinical(("grade", "code"), {"code": "category"}).prepare([*train, *val, *test])
    assert clinical == Clinical(("grade", "code"), {"grade": "number", "code": "category"})
    fold = fit_fold(clinical, train, val, test, BINARY, bag)
    assert fold.values["model"]["columns"] == ["grade", "code: 0", "code: 1", "code: 2", "code: 3"]
    test[0]["covariates"]["grade"] = "1,5"
    with pytest.raises(ValueError, match="`grade` must be a column of numbers with a decimal point"):
        Clinical().prepare([*train, *val, *test])


def test_rows_without_an_item_and_folds_without_validation_are_refused():
    train, val, test, bag = made_fold(sizes=(50, 20, 20))
    with pytest.raises(
        ValueError, match="`bag` must have rows of cases that are among the items, got 1 of other cases"
    ):
        fit_fold(Clinical(), train, val, test[1:], BINARY, bag)
    with pytest.raises(ValueError, match="`bag` must have rows of the validation part, got 20 rows"):
        fit_fold(Clinical(), train, val, test, BINARY, bag.of_part("test"))


def test_equal_survival_curves_stay_as_they_are_when_combined():
    *_, bag = made_fold("survival", sizes=(20, 40, 20))
    truth = TASKS["survival"].truth([{"time": t, "event": e} for t, e in bag.truth])
    fusion = LateFusion.fit(bag.output, bag.output[::-1], truth, bag.patient, TASKS["survival"])
    both = _combine(fusion, bag, bag, TASKS["survival"])
    np.testing.assert_allclose(both.survival, np.clip(bag.survival, 1e-9, 1 - 1e-9), rtol=1e-6)
