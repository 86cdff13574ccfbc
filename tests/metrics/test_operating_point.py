"""Tests of decision thresholds from validation data."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import recall_score, roc_curve

from monai_mil_ext.metrics import (
    sensitivity_specificity,
    threshold_at_sensitivity,
    threshold_at_specificity,
    threshold_at_youden,
)

LABEL = [0, 0, 0, 0, 1, 1, 1, 1]
SCORE = [0.1, 0.2, 0.3, 0.6, 0.25, 0.5, 0.7, 0.8]
DATA = st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=20).map(
    lambda d: (np.array([0, 1] + [int(y) for y, _ in d]), np.array([3.0, 3.0] + [float(s) for _, s in d]))
)


def test_threshold_at_specificity_and_sensitivity_by_hand():
    assert threshold_at_specificity(LABEL, SCORE, 0.75) == 0.5  # 0.3 is a negative and would be positive
    assert threshold_at_specificity(LABEL, SCORE, 0.9) == 0.7
    assert threshold_at_sensitivity(LABEL, SCORE, 0.75) == 0.5
    assert threshold_at_sensitivity(LABEL, SCORE, 0.9) == 0.25
    assert sensitivity_specificity(LABEL, SCORE, 0.5) == {"sensitivity": 0.75, "specificity": 0.75}


def test_sensitivity_specificity_counts_ties_as_positive():
    assert sensitivity_specificity([0, 1], [0.5, 0.5], 0.5) == {"sensitivity": 1.0, "specificity": 0.0}
    assert threshold_at_specificity([0, 1], [0.5, 0.5], 0.9) == math.inf
    assert sensitivity_specificity([0, 1], [0.5, 0.5], math.inf) == {"sensitivity": 0.0, "specificity": 1.0}


def test_sensitivity_specificity_of_a_validation_threshold_on_test_data():
    """The test scores are 0.2 higher, which a threshold chosen on them would hide."""
    frozen = threshold_at_specificity(LABEL, SCORE, 0.75)
    shifted = [s + 0.2 for s in SCORE]
    assert sensitivity_specificity(LABEL, shifted, frozen) == {"sensitivity": 0.75, "specificity": 0.5}


@given(DATA, st.floats(0, 1))
def test_threshold_at_specificity_and_sensitivity_are_the_best_of_scikit_learn(data, minimum):
    fpr, tpr, thresholds = roc_curve(*data, drop_intermediate=False)
    at = threshold_at_specificity(*data, minimum)
    assert sensitivity_specificity(*data, at)["specificity"] >= minimum - 1e-9
    assert sensitivity_specificity(*data, at)["sensitivity"] == pytest.approx(tpr[1 - fpr >= minimum - 1e-9].max())
    assert at in thresholds
    at = threshold_at_sensitivity(*data, minimum)
    assert sensitivity_specificity(*data, at)["sensitivity"] >= minimum - 1e-9
    assert sensitivity_specificity(*data, at)["specificity"] == pytest.approx(1 - fpr[tpr >= minimum - 1e-9].min())
    assert at in thresholds


@given(DATA, st.floats(-1, 7))
def test_sensitivity_specificity_are_recalls_of_scikit_learn(data, threshold):
    label, score = data
    values = sensitivity_specificity(label, score, threshold)
    assert values["sensitivity"] == pytest.approx(recall_score(label, score >= threshold))
    assert values["specificity"] == pytest.approx(recall_score(label, score >= threshold, pos_label=0))


@given(DATA, st.floats(0, 1))
def test_threshold_at_specificity_of_negated_scores_is_that_at_sensitivity(data, minimum):
    """With score >= t and score > t exchanged, sensitivity becomes specificity."""
    label, score = data
    a = sensitivity_specificity(label, score, threshold_at_sensitivity(label, score, minimum))
    b = sensitivity_specificity(1 - label, -score, threshold_at_specificity(1 - label, -score, minimum))
    assert (a["sensitivity"], a["specificity"]) == (b["specificity"], b["sensitivity"])


def test_threshold_at_specificity_has_a_tolerance():
    label, score = [0] * 10 + [1], [*range(10), 9]
    assert threshold_at_specificity(label, score, 0.3 * 3) == 9
    assert threshold_at_sensitivity([1] * 10 + [0], [*range(10, 0, -1), 0], 0.1 + 0.2) == 8


def test_sensitivity_specificity_of_an_absent_class_is_nan():
    values = sensitivity_specificity([1, 1], [0.1, 0.9], 0.5)
    assert values["sensitivity"] == 0.5
    assert math.isnan(values["specificity"])
    assert math.isnan(sensitivity_specificity([0, 0], [0.1, 0.9], 0.5)["sensitivity"])


def test_operating_point_names_invalid_arguments():
    with pytest.raises(ValueError, match="`label` must have both 0 and 1 to choose a threshold, got 2 times 1"):
        threshold_at_specificity([1, 1], [0.1, 0.9], 0.9)
    with pytest.raises(ValueError, match=r"`label` must be \(B,\) of 0 and 1, got \[0 2\]"):
        threshold_at_sensitivity([0, 2], [0.1, 0.9], 0.9)
    with pytest.raises(ValueError, match=r"`score` must be 2 finite numbers, one per label, got \[0.1 nan\]"):
        sensitivity_specificity([0, 1], [0.1, math.nan], 0.5)
    with pytest.raises(ValueError, match="`score` must be 2 finite numbers, one per label"):
        sensitivity_specificity([0, 1], [0.1], 0.5)
    with pytest.raises(ValueError, match=r"`specificity` must be in \[0, 1\], got 90"):
        threshold_at_specificity(LABEL, SCORE, 90)
    with pytest.raises(ValueError, match=r"`sensitivity` must be in \[0, 1\], got nan"):
        threshold_at_sensitivity(LABEL, SCORE, math.nan)
    with pytest.raises(ValueError, match="`threshold` must be a number, got nan"):
        sensitivity_specificity(LABEL, SCORE, math.nan)


@given(DATA)
def test_threshold_at_youden_is_the_best_of_all_thresholds(data):
    label, score = data

    def index(threshold):
        return sum(sensitivity_specificity(label, score, threshold).values())

    threshold = threshold_at_youden(label, score)
    best = max(index(t) for t in [*score, math.inf])
    assert index(threshold) == pytest.approx(best)
    below, above = score[score < threshold], score[score >= threshold]
    if best > 1 + 1e-9:  # in the middle of the widest gap between scores with this index
        gap = above.min() - below.max()
        assert threshold - below.max() == pytest.approx(gap / 2)
        others = np.unique(score)
        gaps = [high - low for low, high in pairwise(others) if index(high) > best - 1e-9]
        assert gap == pytest.approx(max(gaps))
    else:
        assert threshold == score.min()


def test_threshold_at_youden_of_separate_classes_keeps_away_from_both():
    assert threshold_at_youden([0, 0, 1, 1], [0.01, 0.02, 0.98, 0.99]) == pytest.approx(0.5)
    assert threshold_at_youden([0, 1], [1.0, np.nextafter(1, 2)]) == np.nextafter(1, 2)
