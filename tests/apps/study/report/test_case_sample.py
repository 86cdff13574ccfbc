"""Samples of cases: what is left out, and means over cases and repeats."""

import numpy as np
import pytest

from monai_mil_ext.apps.study.report.case_sample import CaseSample, Measure
from monai_mil_ext.apps.study.report.rankings import auroc

from .made import study, table, two


def test_only_finite_predictions_of_test_parts_are_drawn():
    predictions = study("survival")
    predictions.output[3] = np.nan
    predictions.survival[5] = np.nan
    sample = CaseSample.draw(predictions, 10, 0)
    assert len(sample.rows) == 58
    assert set(sample.rows.part) == {"test"}
    assert sample.weights.shape == (11, 58)


def test_mean_is_over_known_values_of_a_repeat_then_over_repeats():
    rows = table([0, 1, 0], two(np.zeros(3)), repeat=np.array([0, 0, 1]), patient=[0, 1, 0])
    sample = CaseSample(rows, np.array([[1.0, 1, 1], [2, 0, 2], [0, 2, 0]]))
    np.testing.assert_allclose(sample.mean(np.array([1.0, 2, 6])), [(1.5 + 6) / 2, (1 + 6) / 2, 2])
    np.testing.assert_allclose(sample.mean(np.array([np.nan, 2, 6])), [4, 6, 2])
    assert sample.count_patients(sample.rows.truth == 0) == 1
    assert sample.count_cases(sample.everywhere) == 3
    assert sample.estimate(Measure(np.ones(3), num_patients=5))["low"] == pytest.approx(0.566, abs=1e-3)


def test_restrict_keeps_the_draws_of_the_patients():
    sample = CaseSample.draw(study("binary"), 10, 0)
    mask = sample.rows.fold == 1
    np.testing.assert_array_equal(sample.restrict(mask).weights, sample.weights[:, mask])
    assert sample.restrict(mask, resample=False).weights.shape == (1, mask.sum())


def test_rankings_of_known_rows_equal_those_of_the_rest_alone():
    sample = CaseSample.draw(study("binary"), 10, 0)
    score, y, known = sample.rows.output[:, 1], sample.rows.truth, np.arange(60) % 3 > 0
    part = sample.restrict(known)
    np.testing.assert_array_equal(
        sample.ranking(auroc, score, y, known=known), part.ranking(auroc, score[known], y[known])
    )


def test_predictions_of_different_folds_are_never_ranked_together():
    sample = CaseSample.draw(study("binary"), 10, 0)
    score, y = sample.rows.output[:, 1], sample.rows.truth
    shifted = score + 10 * sample.rows.fold
    assert len(set(sample.rows.fold)) > 1
    np.testing.assert_array_equal(sample.ranking(auroc, shifted, y), sample.ranking(auroc, score, y))


def test_patients_are_drawn_with_all_of_their_cases():
    patient = np.repeat(np.arange(20), 3)
    sample = CaseSample.draw(table(patient % 2, two(patient / 20.0), patient=patient), 50, 0)
    weights = sample.weights.reshape(51, 20, 3)
    np.testing.assert_array_equal(weights, weights[..., :1].repeat(3, axis=2))
    assert sample.num_patients == 20
    assert len({tuple(row) for row in sample.weights}) > 40
