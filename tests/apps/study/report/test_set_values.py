"""Tests of the sets of instances of a study, calibrated on the other folds."""

import numpy as np
import pytest
import torch

from monai_mil_ext.apps.study.report.case_sample import CaseSample
from monai_mil_ext.apps.study.report.set_values import set_columns, set_summary

from .made import table, two


def summarize(ranks, sizes, fold, alphas=(0.1,), **columns):
    more = {"first_positive_rank": np.array(ranks, float), "bag_size": np.broadcast_to(sizes, len(ranks)).astype(float)}
    rows = table(np.arange(len(ranks)) % 2, two(np.zeros(len(ranks))), np.array(fold), more=more, **columns)
    return set_summary(CaseSample.draw(rows, 200, 0), alphas)


def test_the_rank_is_that_of_the_first_positive_instance_in_the_worst_order():
    attention = torch.tensor([0.3, 0.1, 0.3, 0.3])
    assert set_columns(attention, torch.tensor([1, 0, 0, 1])) == {"first_positive_rank": 2.0, "bag_size": 4.0}
    assert np.isnan(set_columns(attention, torch.zeros(4))["first_positive_rank"])


def test_each_fold_is_calibrated_by_the_others():
    """Nine patients of a fold give the largest of their ranks to the other."""
    (row,) = summarize([*range(1, 10), *range(2, 20, 2)], 20, [0] * 9 + [1] * 9)
    assert (row["confidence"], row["num_cases"], row["num_calibration"]) == (0.9, 18, 9)
    assert row["coverage"]["value"] == pytest.approx((9 + 4) / 18)  # 18 instances, and 9 for the others
    assert row["coverage"]["low"] < 13 / 18 < row["coverage"]["high"]
    assert row["set_size"]["value"] == pytest.approx((18 + 9) / 2)
    assert row["set_share"]["value"] == pytest.approx((18 + 9) / 40)
    assert row["no_set"]["value"] == pytest.approx(0.5)


def test_the_cases_of_a_patient_count_once_by_the_largest_rank():
    ranks, patients = [1, 5] * 9 + [3] * 9, [i // 2 for i in range(18)] + [*range(20, 29)]
    (row,) = summarize(ranks, 20, [0] * 18 + [1] * 9, patient=patients)
    assert row["num_calibration"] == 9
    assert row["set_size"]["value"] == pytest.approx((18 * 3 + 9 * 5) / 27)


def test_too_few_patients_give_no_sets():
    first, second = summarize([1] * 18, 20, [0] * 9 + [1] * 9, alphas=(0.1, 0.05))
    assert (first["set_size"]["value"], first["no_set"]["value"]) == (1, 0)
    assert (second["set_size"]["value"], second["no_set"]["value"], second["coverage"]["value"]) == (20, 1, 1)


def test_cases_without_a_positive_instance_do_not_count():
    (row,) = summarize([*[1.0] * 18, *[np.nan] * 4], 20, [0] * 9 + [1] * 9 + [0, 1] * 2)
    assert (row["num_cases"], row["coverage"]["value"]) == (18, 1)


def test_the_coverage_of_exchangeable_cases_is_what_is_promised():
    draw = np.random.default_rng(0)
    found = [summarize(draw.permutation(500)[:200] + 1, 1000, np.arange(200) % 5, (0.1, 0.05)) for _ in range(5)]
    for place, promised in ((0, 0.9), (1, 0.95)):
        assert np.mean([rows[place]["coverage"]["value"] for rows in found]) == pytest.approx(promised, abs=0.015)


def test_without_labels_or_other_folds_there_is_nothing():
    assert summarize([1] * 12, 20, [0] * 12) == []
    assert summarize([np.nan] * 12, 20, [0, 1] * 6) == []
    rows = table([0, 1], two(np.zeros(2)), np.array([0, 1]))
    assert set_summary(CaseSample.draw(rows, 20, 0)) == []
