"""Methods are compared on the same cases and the same draws of patients."""

from dataclasses import replace

import numpy as np
import pytest

from monai_mil_ext.apps.study.report import compare_methods
from monai_mil_ext.apps.study.report.case_sample import CaseSample
from monai_mil_ext.apps.study.report.task_values import main_measure

from .made import TASKS, study


def better(predictions, task):
    """Return predictions of the same cases that are nearer to the truth."""
    target = np.eye(3)[predictions.truth] if task.kind == "classification" else predictions.truth[:, None]
    return replace(predictions, output=0.5 * predictions.output + 0.5 * target)


@pytest.mark.parametrize("kind", TASKS)
def test_a_method_equals_itself(kind):
    predictions = study(kind)
    order = np.random.default_rng(0).permutation(len(predictions))
    (row,) = compare_methods({"a": predictions, "b": predictions.select(order)}, TASKS[kind], 50)
    assert (row["a"], row["b"], row["difference"], row["p"], row["p_holm"]) == ("a", "b", 0, 1, 1)


def test_differences_are_paired_and_corrected():
    task, weak = TASKS["regression"], study("regression")
    strong = better(weak, task)
    rows = compare_methods({"strong": strong, "weak": weak, "same": weak}, task, 200)
    assert [(row["a"], row["b"]) for row in rows] == [("strong", "weak"), ("strong", "same"), ("weak", "same")]
    samples = [main_measure(CaseSample.draw(p, 200, 0), task).samples for p in (strong, weak)]
    difference = samples[0] - samples[1]
    assert rows[0]["difference"] == pytest.approx(difference[0])
    half = 1.96 * difference[1:].std(ddof=1) * np.sqrt(60 / 59)
    assert rows[0]["high"] - rows[0]["difference"] == pytest.approx(half, rel=1e-3)
    assert rows[0]["p"] < 0.05
    assert rows[0]["p_holm"] == pytest.approx(3 * rows[0]["p"])


def test_only_cases_that_both_predict_are_compared():
    task, a = TASKS["binary"], study("binary")
    b = replace(a, output=np.where((a.fold == 1)[:, None], np.nan, a.output))
    (row,) = compare_methods({"a": a, "b": b}, task, 20)
    assert (row["num_cases"], row["difference"]) == (48, 0)
    nothing = replace(a, output=np.full_like(a.output, np.nan))
    (row,) = compare_methods({"a": a, "b": nothing}, task, 20)
    assert (row["difference"], row["p"], row["p_holm"], row["num_cases"]) == (None, None, None, 0)


def test_methods_with_other_labels_are_refused():
    a = study("binary")
    with pytest.raises(ValueError, match="`methods` must have the same labels for the same cases"):
        compare_methods({"a": a, "b": replace(a, truth=1 - a.truth)}, TASKS["binary"], 20)
    assert compare_methods({"a": a}, TASKS["binary"]) == []


def test_only_the_given_pairs_are_corrected_for():
    task, a = TASKS["regression"], study("regression")
    methods = {"a": a, "b": better(a, task), "c": better(better(a, task), task)}
    everything = compare_methods(methods, task, 20)
    (row,) = compare_methods(methods, task, 20, pairs=[("c", "a")])
    assert (row["a"], row["b"], row["p_holm"]) == ("c", "a", row["p"])
    assert row["difference"] == pytest.approx(-everything[1]["difference"])
