"""Tests of the measures of the benchmark."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from tests.experiments.lesions.rows import value_rows


@pytest.fixture
def measures():
    from experiments.lesions import measures

    return measures


def test_scan_auroc_and_macro_f1_are_those_of_scikit_learn(measures):
    rng = np.random.default_rng(0)
    for _ in range(20):
        label, score = rng.integers(0, 2, 15), rng.integers(0, 5, 15)
        if 0 < label.sum() < 15:
            assert measures.scan_auroc(label, score) == pytest.approx(roc_auc_score(label, score))
        predicted = rng.integers(0, 2, 15)
        expected = f1_score(label, predicted, average="macro", zero_division=0)
        assert measures.macro_f1(label, predicted) == pytest.approx(expected)
    assert np.isnan(measures.scan_auroc(np.ones(3), np.arange(3)))


def test_values_are_means_over_seeds_not_over_all_scans(measures):
    few = {"case_id": "a", "patient": "a", "label": 1, "probability": 0.9, "instance_auroc": 1.0}
    many = [{**few, "case_id": str(i), "instance_auroc": 0.0} for i in range(9)]
    values = measures.statistic([(1, few), *((2, row) for row in many)])
    assert values["instance_auroc"] == 0.5


def test_equal_answers_have_no_scan_values(measures):
    same = [{**row, "probability": 0.5} for row in value_rows(0)]
    result = measures.summarize({0: same}, num_samples=20)
    assert result["values"]["bag_auroc"] is None
    assert result["interval_95"]["bag_auroc"] == [None, None]
    assert result["values"]["instance_auroc"] is not None


def test_the_difference_to_the_center_is_paired(measures):
    center = {seed: value_rows(seed) for seed in (1, 2)}
    better = {
        seed: [{**row, "instance_auroc": row["instance_auroc"] + 0.1} if row["label"] else row for row in part]
        for seed, part in center.items()
    }
    found = measures.compare_with_center(better, center, num_samples=50)
    assert found["instance_auroc"]["difference"] == pytest.approx(0.1)
    assert found["instance_auroc"]["low"] == pytest.approx(found["instance_auroc"]["high"]) == pytest.approx(0.1)
    assert found["over"]["num_bags"] == 20


def test_a_method_that_ranks_no_slices_has_no_difference(measures):
    assert measures.compare_with_center({1: value_rows(1, ranks=False)}, {1: value_rows(1)}) is None
