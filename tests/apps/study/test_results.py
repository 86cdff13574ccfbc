"""Tests of the results of a study."""

import numpy as np
import pytest

from monai_mil_ext.apps.study import Predictions
from monai_mil_ext.apps.study.results import describe_cohort, operating_threshold, read_history
from tests.apps.study.cohort_bags import TASKS, make_items

TASK = TASKS["classification"]


def rows(score, truth):
    names, zeros = [str(i) for i in range(len(truth))], np.zeros(len(truth), dtype=int)
    output = np.column_stack([1 - score, score])
    return Predictions(names, names, [""] * len(truth), zeros, zeros, ["test"] * len(truth), truth, output)


def test_the_threshold_separates_the_classes():
    truth = np.array([0, 0, 0, 1, 1, 1])
    assert operating_threshold(rows(np.array([0.1, 0.2, 0.1, 0.3, 0.4, 0.3]), truth), TASK) == pytest.approx(0.3)
    assert operating_threshold(rows(np.full(6, 0.5), truth), TASK) is None
    assert operating_threshold(rows(np.full(6, 0.5), truth), TASKS["cox"]) is None


def test_the_cohort_is_described_without_names_of_cases(tmp_path):
    items = [{**item, "site": "AB"[i % 2]} for i, item in enumerate(make_items(tmp_path))]
    facts = describe_cohort(items, TASK)
    assert (facts["num_cases"], facts["num_patients"], facts["num_sites"]) == (36, 36, 2)
    assert facts["labels"] == {"no": 18, "yes": 18}
    assert facts["sites"] == {"A": {"no": 18}, "B": {"yes": 18}}
    assert facts["median_instances"] == 12
    numbers = describe_cohort(make_items(tmp_path, "regression"), TASKS["regression"])["labels"]
    assert (numbers["min"], numbers["max"]) == (50, 70)


def test_a_missing_history_is_empty(tmp_path):
    assert read_history(tmp_path / "history.csv") == []
    (tmp_path / "history.csv").write_text("epoch,val_loss\n1,0.5\n2,\n")
    assert read_history(tmp_path / "history.csv")[0] == {"epoch": 1.0, "val_loss": 0.5}
