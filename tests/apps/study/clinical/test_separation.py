"""Tests of the detection of separation."""

import numpy as np
import pytest
from lifelines import CoxPHFitter
from pandas import DataFrame
from sklearn.linear_model import LogisticRegression

from monai_mil_ext.apps.study.clinical.separation import separating_direction


def binary(count=60, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 3)), rng.integers(0, 2, count), rng


def test_overlapping_outcomes_have_no_direction():
    x, truth, rng = binary()
    assert separating_direction(x, truth) is None
    assert separating_direction(x, np.column_stack([rng.exponential(size=60), truth])) is None


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_perfect_predictor_is_found_in_any_unit(scale):
    x, truth, _ = binary()
    x[:, 1] = (truth + np.abs(x[:, 1])) * np.where(truth, 1, -1) * scale
    direction = separating_direction(x, truth)
    assert direction[1] > 0


def test_of_a_category_without_contrast_only_its_column_is_named():
    x, truth, _ = binary()
    x[:, 2] = np.where(truth == 1, np.arange(60) % 3 == 0, 0)
    direction = separating_direction(x, truth)
    assert direction[2] > 0
    assert (direction[:2] == 0).all()


def test_a_combination_that_separates_is_found():
    x, truth, _ = binary()
    x[:, 0] = np.where(truth, 1, -1) * np.abs(x[:, 0]) + 5 * x[:, 1]
    direction = separating_direction(x, truth)
    assert direction[0] != 0
    assert direction[1] != 0


def test_the_direction_never_lowers_the_cox_likelihood():
    rng = np.random.default_rng(3)
    time, event = np.repeat(np.arange(1.0, 21), 2), rng.random(40) < 0.6
    safe = (rng.random(40) < 0.3).astype(float)
    event[safe == 1] = False
    x = np.column_stack([rng.normal(size=40), safe])
    direction = separating_direction(x, np.column_stack([time, event]))
    assert direction[1] < 0
    assert direction[0] == 0
    event[np.flatnonzero(safe)[0]] = True
    assert separating_direction(x, np.column_stack([time, event])) is None


@pytest.mark.parametrize("seed", range(20))
def test_small_samples_agree_with_the_estimates(seed):
    """Without a direction the estimate is finite; with one, it grows with the number of iterations."""
    x, truth, rng = binary(10, seed)
    model = LogisticRegression(C=1e9, tol=1e-10, max_iter=5000).fit(x, truth)
    assert (np.abs(model.coef_).max() > 15) == (separating_direction(x, truth) is not None)
    times = np.column_stack([rng.permutation(10) + 1.0, truth])
    direction = separating_direction(x, times)
    if direction is None:
        frame = DataFrame(np.column_stack([x, times]), columns=["a", "b", "c", "t", "e"])
        assert CoxPHFitter().fit(frame, "t", "e").params_.abs().max() < 15
    else:
        risk = (x / x.std(axis=0)) @ direction
        margins = [risk[i] - risk[times[:, 0] >= times[i, 0]] for i in np.flatnonzero(truth)]
        assert min(map(np.min, margins)) > -1e-6
        assert max(map(np.max, margins)) > 1e-3
