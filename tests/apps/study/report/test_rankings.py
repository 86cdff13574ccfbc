"""Ranking metrics equal scikit-learn and lifelines on one fold, and their means by pairs on several."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines.utils import concordance_index
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score

from monai_mil_ext.apps.study.report.rankings import (
    auroc,
    average_precision_parts,
    c_index,
    mean_within_folds,
    spearman,
    tie_groups,
)

SEEDS = st.integers(0, 10_000)


def data(seed, n=30, ties=True):
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 8, n) / 8.0 if ties else rng.standard_normal(n)
    return rng, score, np.r_[0, 1, rng.integers(0, 2, n - 2)]


def ratio(parts):
    return parts[0] / parts[1]


def copied(column, weights):
    return np.repeat(column, weights.astype(int))


@given(SEEDS, st.booleans())
@settings(deadline=None, max_examples=30)
def test_values_of_copies_equal_the_libraries(seed, ties):
    rng, score, y = data(seed, ties=ties)
    weights = np.stack([np.ones(30), rng.integers(0, 4, 30)]).astype(float)
    weights[:, :2] = 1  # both classes
    for index, (of_auroc, of_precision) in enumerate(
        zip(ratio(auroc(score, y, weights)), ratio(average_precision_parts(score, y, weights)), strict=True)
    ):
        label, copies = copied(y, weights[index]), copied(score, weights[index])
        assert of_auroc == pytest.approx(roc_auc_score(label, copies), abs=1e-12)
        assert of_precision == pytest.approx(average_precision_score(label, copies), abs=1e-12)
        expected = spearmanr(label, copies).statistic
        assert ratio(spearman(y, score, weights))[index] == pytest.approx(expected, abs=1e-12)


@given(SEEDS, st.booleans())
@settings(deadline=None, max_examples=30)
def test_c_index_of_copies_equals_lifelines(seed, ties):
    rng, risk, event = data(seed, ties=ties)
    time = rng.integers(1, 9, 30).astype(float) if ties else rng.exponential(size=30)
    time[:2] = (20.0, 0.5)
    weights = np.stack([np.ones(30), rng.integers(0, 4, 30)]).astype(float)
    weights[:, :2] = 1
    for index, value in enumerate(ratio(c_index(risk, time, event, weights))):
        copies = [copied(column, weights[index]) for column in (time, -risk, event)]
        assert value == pytest.approx(concordance_index(*copies), abs=1e-12)


def test_c_index_of_more_events_than_a_chunk_equals_lifelines():
    rng = np.random.default_rng(0)
    time, risk, event = rng.exponential(size=1500), rng.standard_normal(1500), np.ones(1500)
    value = ratio(c_index(risk, time, event, np.ones((1, 1500))))
    assert value[0] == pytest.approx(concordance_index(time, -risk, event), abs=1e-12)


def test_values_of_folds_are_weighted_by_pairs_and_of_repeats_are_averaged():
    """A shift between folds, as between networks, changes nothing."""
    _, score, y = data(3, 90, ties=False)
    fold = np.repeat([0, 1, 2], [40, 20, 30])
    y[40] = 0
    y[41] = 1
    repeat = np.repeat([0, 0, 1], [40, 20, 30])
    shifted = score + 10 * fold
    ones = np.ones((1, 90))
    value = mean_within_folds(lambda m: auroc(shifted[m], y[m], ones[:, m]), repeat, fold)
    of_folds = [roc_auc_score(y[fold == k], score[fold == k]) for k in range(3)]
    pairs = [y[fold == k].sum() * (1 - y[fold == k]).sum() for k in range(3)]
    expected = (np.average(of_folds[:2], weights=pairs[:2]) + of_folds[2]) / 2
    assert value[0] == pytest.approx(expected, abs=1e-12)
    assert value[0] != pytest.approx(roc_auc_score(y, shifted), abs=0.01)


def test_values_without_pairs_are_nan():
    ones, zeros = np.ones(3), np.zeros(3, int)
    for parts in (auroc, average_precision_parts, spearman):
        assert np.isnan(mean_within_folds(lambda m, p=parts: p(ones[m], ones[m], np.ones((1, m.sum()))), zeros, zeros))
    assert c_index(ones, ones, zeros, np.ones((2, 3)))[1].tolist() == [0, 0]


def test_no_cases_have_no_pairs():
    none, weights = np.zeros(0), np.ones((3, 0))
    for metric in (auroc, average_precision_parts):
        assert [part.tolist() for part in metric(none, none, weights)] == [[0, 0, 0], [0, 0, 0]]
    assert [part.tolist() for part in tie_groups(none)] == [[], []]
