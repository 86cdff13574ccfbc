"""Summary of a method: its form for each task, and input that determines little or nothing."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from monai_mil_ext.apps.study.report import compare_methods, summarize_method
from monai_mil_ext.apps.study.report.decisions import fold_thresholds

from .made import TASKS, study

CLASSES = {"classes", "roc_classes", "pr_classes", "calibration"}
PARTS = {
    "binary": CLASSES | {"roc", "pr", "confusion"},
    "classification": CLASSES | {"confusion"},
    "multilabel": CLASSES,
    "ordinal": CLASSES | {"confusion", "boundaries"},
    "regression": {"scatter"},
    "survival": {"survival"},
    "cox": {"survival"},
}


def summarize(kind, predictions=None, **options):
    rows = study(kind) if predictions is None else predictions
    summary = summarize_method(rows, TASKS[kind], num_samples=40, **options)
    json.dumps(summary, allow_nan=False)
    return summary


@pytest.mark.parametrize("kind", TASKS)
def test_parts_of_each_task(kind):
    summary = summarize(kind, study(kind, repeats=2, per_patient=2))
    assert PARTS[kind] <= set(summary)
    counts = [summary[f"num_{name}"] for name in ("cases", "patients", "folds", "repeats")]
    assert counts == [60, 30, 10, 2]
    assert [(row["fold"], row["repeat"]) for row in summary["folds"]] == [(k, k // 5) for k in range(10)]
    main = summary["values"][summary["main"]]
    assert main["low"] < main["value"] < main["high"]
    assert [site["name"] for site in summary["sites"]] == ["site 0", "site 1"]
    assert all(site[summary["main"]]["value"] is not None for site in summary["sites"])
    assert summary["attention"]["entropy_ratio"]["value"] == pytest.approx(0.5, abs=0.15)
    assert summary["localization"] is None
    assert len(summary["thresholds"]) == {"binary": 10, "multilabel": 30}.get(kind, 0)


def test_values_of_folds_are_those_of_scikit_learn():
    predictions = study("binary")
    test = predictions.of_part("test")
    for row in summarize("binary")["folds"]:
        mask = test.fold == row["fold"]
        assert row["num_cases"] == mask.sum()
        assert row["auroc"] == pytest.approx(roc_auc_score(test.truth[mask], test.output[mask, 1]), abs=1e-12)


def test_the_confusion_matrix_is_that_of_the_thresholds():
    predictions = study("binary")
    summary, limits = summarize("binary"), fold_thresholds(predictions)[0]
    test = predictions.of_part("test")
    decided = test.output[:, 1] >= [limits[k][0] for k in test.fold]
    assert summary["confusion"][1] == [int((test.truth[~decided] == 1).sum()), int((test.truth[decided] == 1).sum())]
    assert summary["values"]["sensitivity"]["value"] == pytest.approx(decided[test.truth == 1].mean())
    assert summary["classes"][0]["sensitivity"] == pytest.approx(summary["values"]["specificity"])


def test_an_external_cohort_has_the_mean_of_the_thresholds():
    external = study("binary", folds=1, seed=1)
    frozen = [{"fold": 0, "threshold": 0.2}, {"fold": 1, "threshold": 0.6}]
    assert summarize("binary", external, thresholds=frozen)["thresholds"] == [{"fold": 0, "threshold": 0.4}]
    names = ("a", "b", "c")
    frozen = [{"fold": k, "label": name, "threshold": 0.2 + 0.1 * k} for k in (0, 1) for name in names]
    rows = summarize("multilabel", study("multilabel", folds=1), thresholds=frozen)["thresholds"]
    assert [row["threshold"] for row in rows] == pytest.approx([0.25] * 3)


def test_summaries_with_one_seed_are_equal():
    assert summarize("cox", seed=3) == summarize("cox", seed=3)
    assert summarize("cox", seed=3) != summarize("cox", seed=4)


def one_class(predictions, rows):
    truth = predictions.truth.copy()
    if has_times(truth):
        truth[rows, 1] = 0
    else:
        truth[rows] = 0
    return replace(predictions, truth=truth)


def has_times(truth):
    return truth.ndim == 2 and truth.shape[1] == 2


def perfect(predictions):
    truth, output = predictions.truth, predictions.output
    if output.shape[1] == 1:
        return replace(predictions, output=(-truth[:, :1] if truth.ndim == 2 else truth[:, None]))
    return replace(predictions, output=np.nan_to_num(truth) if truth.ndim == 2 else np.eye(output.shape[1])[truth])


DEGENERATE = {
    "failed fold": lambda p: replace(p, output=np.where((p.fold == 1)[:, None], np.nan, p.output)),
    "all failed": lambda p: replace(p, output=np.full_like(p.output, np.nan)),
    "constant": lambda p: replace(p, output=np.full_like(p.output, 1 / p.output.shape[1])),
    "one patient": lambda p: replace(p, patient=["p"] * len(p)),
    "no rows": lambda p: p.select(np.zeros(len(p), bool)),
    "no validation part": lambda p: p.of_part("test"),
    "one row": lambda p: p.select(np.array([0])),
    "one class": lambda p: one_class(p, np.arange(len(p))),
    "one class in a fold": lambda p: one_class(p, p.fold == 0),
    "perfect": perfect,
    "infinite": lambda p: replace(p, output=np.where(np.arange(len(p))[:, None] == 2, np.inf, p.output)),
}
SAYS = {
    "failed fold": "12 of 60 predictions are not finite and are left out (of fold 1).",
    "all failed": "There are no predictions of test cases.",
    "constant": "All predictions of a fold are equal, so they do not rank cases.",
    "one patient": "There are no intervals: all cases are of one patient.",
    "no rows": "There are no predictions of test cases.",
    "one row": "There are no intervals: all cases are of one patient.",
    "infinite": "1 of 60 predictions are not finite and are left out (of fold 0).",
}


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("kind", TASKS)
def test_input_that_determines_little_is_summarized_with_notes(kind, name):
    predictions = DEGENERATE[name](study(kind))
    summary = summarize(kind, predictions)
    if name in SAYS:
        assert SAYS[name] in summary["notes"]
    for metric, estimate in summary["values"].items():
        if estimate["value"] is None:
            assert any(note.startswith("Undefined") and metric in note for note in summary["notes"])
        elif estimate["low"] is not None:
            assert estimate["low"] - 1e-9 <= estimate["value"] <= estimate["high"] + 1e-9
    main = summary["values"][summary["main"]]
    if name in ("all failed", "no rows", "one row", "one class"):
        assert main == {"value": None, "low": None, "high": None}
    if name == "perfect":
        assert main["value"] == 1
        assert main["low"] is None or main["low"] < 0.95
    json.dumps(compare_methods({"a": predictions, "b": predictions}, TASKS[kind], 10), allow_nan=False)


def test_a_fold_of_one_class_has_no_auroc_of_its_own():
    summary = summarize("binary", one_class(study("binary"), study("binary").fold == 0))
    assert summary["folds"][0]["auroc"] is None
    assert "Fold 0 has no auroc: the labels do not vary there." in summary["notes"]
    assert summary["values"]["auroc"]["value"] is not None


@pytest.mark.slow(buys="1,000 resamples of 3,000 cases and 4 methods take less than a minute, of 40 cases 2 s")
@pytest.mark.parametrize(("kind", "folds"), [("binary", 5), ("binary", 1), ("cox", 5), ("cox", 1)])
def test_time_of_1000_resamples(kind, folds):
    for num_cases, num_methods, limit in ((3000, 4, 60), (40, 1, 2)):
        methods = {str(seed): study(kind, num_cases, folds) for seed in range(num_methods)}
        start = time.process_time()
        for predictions in methods.values():
            summarize_method(predictions, TASKS[kind])
        compare_methods(methods, TASKS[kind])
        assert time.process_time() - start < limit
