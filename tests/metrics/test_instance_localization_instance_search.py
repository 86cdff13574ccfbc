"""Ranking metrics: pointing game, precision at recall, skill."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_mil_ext.metrics import localization_skill, pointing_game, precision_at_recall

LABELS = torch.tensor([0, 1, 1, 0, 1])
BAGS = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=10).map(
    lambda bag: (torch.tensor([s for s, _ in bag]).float(), torch.tensor([y for _, y in bag]))
)


def test_pointing_game_by_hand():
    assert pointing_game(torch.tensor([0.1, 0.2, 0.9, 0.3, 0.4]), LABELS) == 1
    assert pointing_game(torch.tensor([0.5, 0.2, 0.1, 0.3, 0.4]), LABELS) == 0
    assert pointing_game(torch.tensor([0.5, 0.5, 0.1, 0.5, 0.4]), LABELS) == pytest.approx(1 / 3)


def test_precision_at_recall_by_hand():
    """In order 0 1 1 0 1: precision 0, 1/2, 2/3, 2/4, 3/5 at recall 0, 1/3, 2/3, 2/3, 1."""
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
    precision = [precision_at_recall(scores, LABELS, r) for r in (0.05, 1 / 3, 2 / 3, 0.67, 1)]
    assert precision == pytest.approx(
        [2 / 3, 2 / 3, 2 / 3, 3 / 5, 3 / 5]
    )  # the best at or beyond the recall, not that of the step
    assert precision_at_recall(torch.tensor([0.1, 0.9, 0.5, 0.6, 0.5]), LABELS, 0.5) == pytest.approx(3 / 4)


def test_precision_at_recall_has_a_tolerance():
    labels = torch.arange(10) % 11 < 10
    labels = torch.cat([labels, torch.zeros(10, dtype=torch.bool)])
    scores = torch.cat([torch.tensor([9.0] * 3 + [0.0] * 7), torch.ones(10)])
    assert precision_at_recall(scores, labels, 0.1 + 0.2) == 1  # 0.30000000000000004


@given(BAGS, st.floats(0.01, 1))
def test_precision_at_recall_is_that_of_the_best_threshold(bag, recall):
    scores, y = bag
    if y.all() or not y.any():
        assert math.isnan(precision_at_recall(scores, y, recall))
        assert math.isnan(pointing_game(scores, y))
        return
    predictions = [scores >= t for t in scores]
    precision = [(f & y).sum().item() / f.sum().item() for f in predictions if (f & y).sum() / y.sum() >= recall - 1e-7]
    assert precision_at_recall(scores, y, recall) == pytest.approx(max(precision))
    assert pointing_game(scores, y) == pytest.approx((scores.max() == scores)[y].sum() / (scores.max() == scores).sum())


@given(BAGS, st.randoms(use_true_random=False))
def test_pointing_game_and_precision_are_invariant_to_order_and_scale(bag, random):
    scores, y = bag
    order = random.sample(range(len(y)), len(y))
    for value in (pointing_game, lambda s, y: precision_at_recall(s, y, 0.5)):
        assert value(scores, y) == pytest.approx(value(scores[order].double().exp(), y[order]), nan_ok=True)


def test_localization_skill_by_hand():
    assert localization_skill(0.85, 0.7) == pytest.approx(0.5)
    assert localization_skill(0.7, 0.7) == 0
    assert localization_skill(1.0, 0.7) == 1
    assert localization_skill(0.55, 0.7) == pytest.approx(-0.5)
    assert all(math.isnan(localization_skill(*pair)) for pair in [(0.9, 1.0), (math.nan, 0.5), (0.5, math.nan)])


def test_instance_search_names_invalid_arguments():
    with pytest.raises(ValueError, match=r"`labels` must have the shape \(N,\) of `scores` \(5,\), got \(4,\)"):
        pointing_game(torch.rand(5), torch.ones(4))
    with pytest.raises(ValueError, match="`scores` must be finite, got tensor"):
        precision_at_recall(torch.tensor([0.5, math.nan]), torch.tensor([0, 1]), 0.5)
    for recall in (0, 1.1, math.nan):
        with pytest.raises(ValueError, match=rf"`recall` must be in \(0, 1\], got {recall}"):
            precision_at_recall(torch.rand(5), LABELS, recall)
    with pytest.raises(ValueError, match=r"`center_auroc` must be in \[0, 1\], got 1.5"):
        localization_skill(0.5, 1.5)
    with pytest.raises(ValueError, match=r"`auroc` must be in \[0, 1\], got -0.1"):
        localization_skill(-0.1, 0.5)
