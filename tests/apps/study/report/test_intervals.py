"""Intervals hold the truth as often as they state, and p-values of equal methods are uniform."""

import numpy as np
import pytest

from monai_mil_ext.apps.study import Task
from monai_mil_ext.apps.study.report.case_sample import CaseSample
from monai_mil_ext.apps.study.report.intervals import (
    as_estimate,
    case_weights,
    difference_estimate,
    holm,
    number,
    wilson_interval,
)
from monai_mil_ext.apps.study.report.task_values import main_measure

from .made import BINARY, binormal, exponential, table, two

C_INDEX = 0.6945  # of `exponential`, by 40 samples of 3,000 cases
NUM_SETS = 300


def estimate(predictions, task, seed):
    sample = CaseSample.draw(predictions, 1000, seed)
    return sample.estimate(main_measure(sample, task))


def auroc_set(rng, num_cases, true, per_patient, num_folds=1, positives=0.5):
    label, score, patient = binormal(rng, num_cases, true, per_patient, positives)
    fold = rng.permutation(patient.max() + 1)[patient] % num_folds
    return table(label, two(score), fold=fold, patient=patient)


def share_that_holds(draw, task, true):
    held = []
    for seed in range(NUM_SETS):
        interval = estimate(draw(np.random.default_rng(seed)), task, seed)
        held.append(interval["low"] <= true <= interval["high"])
    return np.mean(held)


@pytest.mark.slow(buys="95 % intervals of the AUROC hold the truth in 92 to 98 % of 300 sets")
@pytest.mark.parametrize("true", [0.75, 0.9])
@pytest.mark.parametrize(
    ("num_cases", "per_patient", "num_folds", "positives"),
    [
        (100, 1, 1, 0.5),
        (40, 1, 1, 0.5),
        (100, 2, 1, 0.5),
        (40, 2, 1, 0.5),
        (40, 1, 1, 0.25),
        (100, 1, 5, 0.5),
        (100, 2, 5, 0.5),
    ],
)
def test_intervals_hold_the_auroc_of_the_population(num_cases, per_patient, num_folds, positives, true):
    share = share_that_holds(
        lambda rng: auroc_set(rng, num_cases, true, per_patient, num_folds, positives), BINARY, true
    )
    assert 0.92 <= share <= 0.98


@pytest.mark.slow(buys="95 % intervals of the C-index hold the truth in 92 to 98 % of 300 sets")
@pytest.mark.parametrize(("num_cases", "per_patient"), [(100, 1), (40, 1), (100, 2), (40, 2)])
def test_intervals_hold_the_c_index_of_the_population(num_cases, per_patient):
    def draw(rng):
        truth, risk, patient = exponential(rng, num_cases, per_patient)
        return table(truth, risk[:, None], patient=patient)

    assert 0.92 <= share_that_holds(draw, Task("cox"), C_INDEX) <= 0.98


@pytest.mark.slow(buys="p-values of methods that are equally good are below .05 in 3 to 8 % of 300 sets")
@pytest.mark.parametrize(("num_cases", "per_patient"), [(100, 1), (40, 1), (100, 2)])
def test_p_values_of_equal_methods(num_cases, per_patient):
    below = []
    for seed in range(NUM_SETS):
        rng = np.random.default_rng(seed)
        label, shared, patient = binormal(rng, num_cases, 0.8, per_patient)
        scores = [shared + rng.standard_normal(num_cases) for _ in range(2)]
        samples = [
            main_measure(CaseSample.draw(table(label, two(s), patient=patient), 1000, seed), BINARY).samples
            for s in scores
        ]
        below.append(difference_estimate(samples[0] - samples[1], patient.max() + 1)["p"] < 0.05)
    assert 0.03 <= np.mean(below) <= 0.08


def test_weights_are_those_of_whole_patients_and_the_same_for_all_methods():
    folds = [0, 0, 0, 0]
    weights = case_weights(["b", "a", "b", "c"], folds, 50, seed=1)
    assert weights[0].tolist() == [1, 1, 1, 1]
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    np.testing.assert_array_equal(case_weights(["c", "b", "a", "b"], folds, 50, seed=1), weights[:, [3, 0, 1, 2]])
    one, other = (case_weights(["b", "a"], folds[:2], 50, seed) for seed in (1, 2))
    assert (one != other).any()


def test_patients_are_drawn_within_the_fold_of_their_first_repeat():
    patients, folds = list("abcdefghijklm") * 2, [0] * 5 + [1] * 5 + [2] * 3 + [3, 4] * 6 + [3]
    weights = case_weights(patients, folds, 50, seed=1)
    for fold in (0, 1, 2):
        members = np.flatnonzero(np.array(folds) == fold)
        assert (weights[:, members].sum(axis=1) == len(members)).all()
    np.testing.assert_array_equal(weights[:, :13], weights[:, 13:])
    np.testing.assert_array_equal(case_weights(patients[5:10], folds[5:10], 50, seed=1), weights[:, 5:10])


def test_patients_of_tiny_folds_are_drawn_together():
    """Alone, the patient of a fold would be in every resample and never vary."""
    weights = case_weights(list("abcdef"), [0, 1, 2, 3, 4, 5], 50, seed=1)
    assert (weights[1:].std(axis=0) > 0).all()
    assert (weights.sum(axis=1) == 6).all()


def test_weights_need_a_sample():
    with pytest.raises(ValueError, match="`num_samples` must be a positive integer, got 0"):
        case_weights(["a"], [0], 0)


@pytest.mark.parametrize("scale", ["share", "squares", "correlation", "error", "determination", "free"])
def test_limits_stay_within_the_scale(scale):
    samples = np.array([0.9, 0.7, 0.99, 0.9, 0.95, 0.4])
    lowest, highest = {"share": (0, 1), "correlation": (-1, 1), "error": (0, 9), "determination": (-9, 1)}.get(
        scale, (-9, 9)
    )
    limits = as_estimate(samples, 5, scale)
    assert lowest <= limits["low"] < limits["value"] < limits["high"] <= highest


def test_a_share_at_its_bound_has_wilsons_interval():
    """All resamples agree, so their standard deviation would state that the truth is known."""
    one = as_estimate(np.ones(100), 30, count=10)
    assert (one["low"], one["high"]) == (pytest.approx(0.7225, abs=1e-4), 1.0)
    none = as_estimate(np.zeros(100), 30, count=10)
    assert (none["low"], none["high"]) == (0.0, pytest.approx(0.2775, abs=1e-4))
    assert as_estimate(np.ones(100), 30, "correlation") == {"value": 1.0, "low": None, "high": None}


def test_wilson_interval_by_hand():
    assert wilson_interval(0.5, 20) == (pytest.approx(0.2993, abs=1e-4), pytest.approx(0.7007, abs=1e-4))
    assert np.isnan(wilson_interval(0.5, 0)).all()


def test_values_that_are_undefined_are_none():
    assert as_estimate(np.full(9, np.nan), 30) == {"value": None, "low": None, "high": None}
    assert as_estimate(np.full(9, 0.5), 1) == {"value": 0.5, "low": None, "high": None}
    assert as_estimate(np.array([0.5, 0.4, np.nan, np.nan, np.nan]), 9) == {"value": 0.5, "low": None, "high": None}
    assert difference_estimate(np.full(9, np.nan), 9) == dict.fromkeys(("difference", "low", "high", "p"))
    assert number(float("inf")) is None


def test_p_values_are_not_below_the_resolution():
    rng = np.random.default_rng(0)
    assert difference_estimate(np.r_[1, rng.normal(1, 0.01, 500)], 50)["p"] == 1 / 500


def test_holm_by_hand():
    """Sorted: .01 * 4, .02 * 3, .03 * 2, .04 * 1, each at least the one before."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, None, 0.6]) == [1.0, None, 1.0]
    assert holm([]) == []
