"""Brier score by hand; survival of groups, log-rank test and hazard ratio."""

import numpy as np
import pytest
from lifelines.statistics import logrank_test

from monai_mil_ext.apps.study.report.case_sample import CaseSample
from monai_mil_ext.apps.study.report.survival_values import integrated_brier, risk_groups, survival_summary

from .made import study, table


def test_integrated_brier_with_censoring_by_hand():
    """Censoring at 2: G is 1 before and 1/2 after it. Events at 1 and 3, censored at 2, observed to 4."""
    time, event = np.array([1.0, 2, 3, 4]), np.array([1, 0, 1, 0])
    predicted = np.array([[0.5, 0.2], [0.5, 0.5], [0.75, 0.5], [1.0, 0.75]])
    at_1_5 = np.array([0.25, 0.25, 0.0625, 0])  # all have weight 1
    at_2_5 = np.array([0.04, 0, 0.25 / (2 / 3), 0.0625 / (2 / 3)])  # 2 of 3 at risk remain after the censoring
    expected = (at_1_5 + at_2_5) / 2
    np.testing.assert_allclose(integrated_brier(predicted, np.array([1.5, 2.5]), time, event), expected)
    np.testing.assert_allclose(integrated_brier(predicted[:, :1], np.array([1.5]), time, event), at_1_5)
    more = np.concatenate([predicted, np.zeros((4, 1))], axis=1)
    np.testing.assert_allclose(integrated_brier(more, np.array([1.5, 2.5, np.inf]), time, event), expected)


def test_integrated_brier_without_times_in_the_follow_up_is_nan():
    assert np.isnan(integrated_brier(np.ones((2, 1)), np.array([9.0]), np.array([1.0, 2]), np.ones(2))).all()


def test_groups_are_thirds_of_each_fold():
    sample = CaseSample.draw(study("cox", 60, folds=4), 5, 0)
    first, group = risk_groups(sample, 3)
    for fold in range(4):
        assert np.bincount(group[sample.rows.fold[first] == fold]).tolist() == [5, 5, 5]


def test_groups_of_repeats_have_each_case_once():
    sample = CaseSample.draw(study("cox", 60, folds=4, repeats=3), 5, 0)
    first, group = risk_groups(sample, 3)
    assert len({sample.rows.case_id[i] for i in first}) == 60
    assert np.abs(np.bincount(group) - 20).max() <= 2  # cases with equal means stay together


def test_survival_summary_of_made_data():
    rng = np.random.default_rng(0)
    risk = rng.standard_normal(2000)
    event_time, censoring = rng.exponential(np.exp(-0.8 * risk)), rng.exponential(2.6, 2000)
    truth = np.stack([np.minimum(event_time, censoring), event_time <= censoring], axis=1)
    summary, notes = survival_summary(CaseSample.draw(table(truth, risk[:, None]), 5, 0))
    assert notes == []
    assert summary["hazard_ratio"]["low"] < np.exp(0.8 * risk.std()) < summary["hazard_ratio"]["high"]
    assert summary["log_rank_p"] < 1e-20
    low, _, high = summary["groups"]
    assert (low["name"], high["name"]) == ("low risk", "high risk")
    assert np.interp(1.0, low["times"], low["survival"]) > np.interp(1.0, high["times"], high["survival"]) + 0.2
    assert len({tuple(t for t, _ in group["at_risk"]) for group in summary["groups"]}) == 1  # the same times
    assert low["at_risk"][0] == [0.0, low["num_cases"]]
    assert [n for _, n in low["at_risk"]] == sorted((n for _, n in low["at_risk"]), reverse=True)


def test_few_cases_are_divided_into_halves_as_lifelines_tests_them():
    truth = np.stack([np.arange(1.0, 9), np.ones(8)], axis=1)
    summary, notes = survival_summary(CaseSample.draw(table(truth, -truth[:, :1]), 5, 0))
    assert [group["num_cases"] for group in summary["groups"]] == [4, 4]
    assert "halves" in notes[0]
    assert summary["log_rank_p"] == pytest.approx(logrank_test(truth[:4, 0], truth[4:, 0]).p_value)


@pytest.mark.parametrize("risk", [np.zeros(9), np.arange(9.0)])
def test_groups_that_say_nothing_are_refused_with_a_note(risk):
    truth = np.stack([np.arange(1.0, 10), (np.arange(9) < 2) | (risk == 0)], axis=1)
    summary, notes = survival_summary(CaseSample.draw(table(truth, risk[:, None]), 5, 0))
    assert summary is None
    assert "no survival curves" in notes[0]
