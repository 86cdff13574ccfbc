"""Tests of calibration metrics and temperature scaling."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from monai_mil_ext.metrics import TemperatureScaling, brier_score, expected_calibration_error


def probabilities(seed, num_bags=60, num_classes=3):
    rng = np.random.default_rng(seed)
    return rng.integers(0, num_classes, num_bags), rng.dirichlet(np.ones(num_classes), num_bags)


def from_second(*second):
    return np.array([[1 - p, p] for p in second])


def test_expected_calibration_error_by_hand():
    """Five bins; (0.6, 0.8] holds 0.7 right and 0.8 wrong, (0.8, 1] holds 0.9, 0.9 and 1.0 of which one is wrong."""
    p = from_second(0.7, 0.2, 0.9, 0.1, 1.0)
    expected = (2 * abs(0.5 - 0.75) + 3 * abs(2 / 3 - 2.8 / 3)) / 5
    assert expected_calibration_error([1, 1, 1, 1, 1], p, num_bins=5) == pytest.approx(expected, abs=1e-6)


def test_expected_calibration_error_bins_include_their_upper_edge():
    """Of four bins, 0.75 is in that of 0.6; in the next bin the error would be (0.4 + 0.75) / 2."""
    assert expected_calibration_error([1, 0], from_second(0.6, 0.75), 4) == pytest.approx(0.175, abs=1e-6)
    # MONAI's other rule puts 5/9 beside 6/9: with right=True the error is 1/9
    assert expected_calibration_error([1, 0], from_second(5 / 9, 6 / 9), 9) == pytest.approx(5 / 9, abs=1e-6)


@given(st.integers(0, 999), st.integers(1, 20), st.integers(2, 4))
@settings(max_examples=40)
def test_expected_calibration_error_equals_its_formula(seed, num_bins, num_classes):
    y, p = probabilities(seed, num_classes=num_classes)
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == y
    bins = [(confidence > m / num_bins) & (confidence <= (m + 1) / num_bins) for m in range(num_bins)]
    expected = sum(abs(correct[b].mean() - confidence[b].mean()) * b.mean() for b in bins if b.any())
    assert expected_calibration_error(y, p, num_bins) == pytest.approx(expected, abs=1e-5)


def test_expected_calibration_error_bounds():
    assert expected_calibration_error([0, 1], np.eye(2)) == 0
    assert expected_calibration_error([1, 0], np.eye(2)) == 1
    y = (np.random.default_rng(0).random(20000) < 0.7).astype(int)
    assert expected_calibration_error(y, from_second(*[0.7] * 20000)) < 0.01


@given(st.integers(0, 999), st.integers(2, 4))
@settings(max_examples=40)
def test_brier_score_equals_scikit_learn(seed, num_classes):
    y, p = probabilities(seed, num_classes=num_classes)
    scored = p[:, 1] if num_classes == 2 else p
    assert brier_score(y, p) == pytest.approx(brier_score_loss(y, scored, labels=list(range(num_classes))))


def test_brier_score_by_hand():
    assert brier_score([1, 0], from_second(0.8, 0.4)) == pytest.approx((0.04 + 0.16) / 2)
    assert brier_score([2], np.array([[0.5, 0.3, 0.2]])) == pytest.approx(0.25 + 0.09 + 0.64)


def test_temperature_scaling_by_hand():
    """Logits 2 apart that are right 3 times of 4 should be log 3 apart."""
    scaling = TemperatureScaling().fit(torch.tensor([[2.0, 0.0]] * 4), torch.tensor([0, 0, 0, 1]))
    assert scaling.temperature == pytest.approx(2 / math.log(3), rel=1e-9)
    assert_close(scaling(torch.tensor([[2.0, 0.0]])), torch.tensor([[math.log(3), 0.0]]))


@given(st.integers(0, 999), st.integers(2, 4), st.floats(0.2, 5))
@settings(max_examples=30)
def test_temperature_scaling_maximizes_the_likelihood(seed, num_classes, scale):
    y, p = (torch.from_numpy(v) for v in probabilities(seed, num_classes=num_classes))
    y = torch.where(torch.rand(len(y), generator=torch.Generator().manual_seed(seed)) < 0.6, p.argmax(1), y)
    logits = p.log() * scale
    scaling = TemperatureScaling().fit(logits, y)
    least = cross_entropy(scaling(logits), y)
    grid = [cross_entropy(logits / t, y) for t in np.geomspace(0.01, 100, 200)]
    assert least <= min(grid) + 1e-12
    # logits that are hotter by a factor need a temperature that is higher by it
    assert TemperatureScaling().fit(logits * 2, y).temperature == pytest.approx(2 * scaling.temperature, rel=1e-6)


@given(st.integers(0, 999), st.floats(0.01, 100))
@settings(max_examples=40)
def test_temperature_scaling_keeps_the_predicted_class(seed, temperature):
    logits = torch.randn(30, 4, generator=torch.Generator().manual_seed(seed)) * 5
    assert torch.equal(TemperatureScaling(temperature)(logits).argmax(1), logits.argmax(1))


def test_temperature_scaling_calibrates_other_data():
    rng = np.random.default_rng(3)
    truth = torch.from_numpy(rng.normal(0, 1.5, (8000, 3)))
    y = torch.tensor([rng.choice(3, p=p) for p in truth.softmax(1).numpy()])
    scaling = TemperatureScaling().fit(3 * truth[:4000], y[:4000])
    assert scaling.temperature == pytest.approx(3, rel=0.05)
    before, after = (z[4000:].softmax(1).numpy() for z in (3 * truth, scaling(3 * truth)))
    assert expected_calibration_error(y[4000:], before) > 0.1
    assert expected_calibration_error(y[4000:], after) < 0.03


def test_temperature_scaling_of_uninformative_data():
    assert TemperatureScaling(7.0).fit(torch.ones(3, 2), torch.tensor([0, 1, 1])).temperature == 1
    assert TemperatureScaling().fit(torch.eye(2), torch.tensor([0, 1])).temperature == pytest.approx(0.01)
    assert TemperatureScaling().fit(torch.eye(2), torch.tensor([1, 0])).temperature == pytest.approx(100)


def test_calibration_names_invalid_arguments():
    fit = TemperatureScaling().fit
    with pytest.raises(ValueError, match=r"`probability` must be probabilities that sum to 1 .*, got a sum of 2\."):
        brier_score([0], np.ones((1, 2)))
    with pytest.raises(ValueError, match=r"`probability` must be .* got .*nan"):
        brier_score([0], np.full((1, 2), math.nan))
    with pytest.raises(ValueError, match=r"`label` must be 2 classes in \[0, 2\), got \[0 2\]"):
        expected_calibration_error([0, 2], np.eye(2))
    with pytest.raises(ValueError, match="`num_bins` must be a positive integer, got 0"):
        expected_calibration_error([0, 1], np.eye(2), num_bins=0)
    with pytest.raises(ValueError, match="`temperature` must be positive and finite, got 0"):
        TemperatureScaling(0)
    with pytest.raises(ValueError, match=r"`logits` must be \(B, C >= 2\) and finite, got shape \(3, 1\)"):
        fit(torch.rand(3, 1), torch.zeros(3))
    with pytest.raises(ValueError, match=r"`label` must be 3 classes in \[0, 2\), got \[0 1\]"):
        fit(torch.rand(3, 2), torch.tensor([0, 1]))
