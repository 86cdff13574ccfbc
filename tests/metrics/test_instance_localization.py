"""Tests of measures of instance localization: single bags, curves, ranking metrics and the metric of MONAI."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from monai_mil_ext.metrics import (
    InstanceLocalizationMetric,
    center_scores,
    localization,
    localization_curves,
    localization_skill,
    pointing_game,
    precision_at_recall,
)

LABELS = torch.tensor([0, 1, 1, 0, 0])


def test_localization_by_hand():
    """By hand: 5 of 6 pairs in order; precision 1 at the first hit, 2/3 at the second."""
    values = localization(torch.tensor([0.1, 0.4, 0.2, 0.25, 0.05]), LABELS)
    assert values["auroc"] == pytest.approx(5 / 6)
    assert values["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert values["mass"] == pytest.approx(0.6)


def test_localization_auroc_counts_ties_one_half():
    assert localization(torch.ones(5), LABELS) == pytest.approx({"auroc": 0.5, "average_precision": 0.4, "mass": 0.4})


@given(st.lists(st.floats(0, 1, width=32), min_size=5, max_size=5), st.integers(1, 5))
def test_localization_auroc_depends_on_the_order_only(scores, power):
    scores = torch.tensor(scores, dtype=torch.float64)
    a, b = (localization(s, LABELS)["auroc"] for s in (scores, torch.exp(scores) * power))
    if len(scores.unique()) == len(torch.exp(scores).unique()):
        assert a == pytest.approx(b)


@pytest.mark.parametrize("labels", [torch.zeros(5), torch.ones(5)], ids=["none", "all"])
def test_localization_of_one_label_is_nan(labels):
    assert all(math.isnan(v) for v in localization(torch.rand(5), labels).values())


def test_localization_mass_of_negative_scores_is_nan():
    values = localization(torch.tensor([-1.0, 2.0, 1.0, 0.0, 0.0]), LABELS)
    assert math.isnan(values["mass"])
    assert values["auroc"] == 1.0


def test_center_scores_tie_only_in_mirrored_pairs():
    assert center_scores(5).tolist() == [-2, -1, 0, -1, -2]
    assert len(center_scores(301).unique()) == 151


def test_instance_localization_metric_averages_over_positive_bags():
    metric = InstanceLocalizationMetric("auroc")
    perfect, reversed_ = LABELS.float(), 1 - LABELS.float()
    metric(y_pred=[perfect, reversed_, torch.rand(3)], y=[LABELS, LABELS, torch.zeros(3)])
    assert_close(metric.aggregate(), torch.tensor(0.5, dtype=torch.float64))


def test_instance_localization_names_invalid_arguments():
    with pytest.raises(ValueError, match=r"`labels` must have the shape \(N,\) of `scores` \(5,\), got \(4,\)"):
        localization(torch.rand(5), torch.ones(4))
    with pytest.raises(ValueError, match=r"`metric` must be one of 'auroc', 'average_precision', .*, got 'auc'"):
        InstanceLocalizationMetric("auc")
    with pytest.raises(ValueError, match=r"`metric` must be one of .*'precision_at_0.1', .*, got 'precision_at_2'"):
        InstanceLocalizationMetric("precision_at_2")
    with pytest.raises(ValueError, match=r"`y` must be the instance labels \(B, N\), got None"):
        InstanceLocalizationMetric()(torch.rand(1, 5))
    with pytest.raises(ValueError, match="`y_pred` must be given before the value is computed, got none"):
        InstanceLocalizationMetric().aggregate()


def test_instance_localization_metric_has_all_metrics():
    """Two heads whose mean is (0.5, 0.3, 0.2): the negative comes first, then both positives."""
    heads, labels = torch.tensor([[0.6, 0.4], [0.3, 0.3], [0.1, 0.3]]), torch.tensor([0, 1, 1])
    expected = {"auroc": 0, "average_precision": 7 / 12, "mass": 0.5, "pointing_game": 0, "precision_at_0.5": 2 / 3}
    for name, value in expected.items():
        metric = InstanceLocalizationMetric(name)
        metric([heads], [labels])
        assert metric.aggregate().item() == pytest.approx(value)


def test_instance_localization_metric_skill_is_that_of_the_means():
    """Bag by bag it would be (1 + 0) / 2; of the means of AUROC (1, 0.5) and of the center (0.75, 0.5) it is 1/3."""
    metric = InstanceLocalizationMetric("skill")
    metric([torch.tensor([0.1, 0.9, 0.2])], [torch.tensor([0, 1, 1])])
    metric([torch.ones(4)], [torch.tensor([1, 0, 0, 1]).roll(1)])
    assert metric.aggregate().item() == pytest.approx((0.75 - 0.625) / (1 - 0.625))
    assert InstanceLocalizationMetric("auroc").per_instance == (True, True)


BAG = st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.5, 0.9]), st.booleans()), min_size=2, max_size=12)
BAGS = st.lists(BAG.filter(lambda bag: len({y for _, y in bag}) == 2), min_size=1, max_size=4)


def tensors(bags):
    return [torch.tensor([s for s, _ in bag]) for bag in bags], [torch.tensor([int(y) for _, y in bag]) for bag in bags]


@given(BAGS)
def test_localization_curves_areas_are_mean_auroc_and_average_precision(bags):
    scores, labels = tensors(bags)
    curves = localization_curves(scores, labels, num_points=4001)
    each = [localization(s, y) for s, y in zip(scores, labels, strict=True)]
    auroc, ap = (np.mean([values[name] for values in each]) for name in ("auroc", "average_precision"))
    assert np.trapezoid(curves.sensitivity, curves.share) == pytest.approx(auroc, abs=2e-3)
    assert curves.precision[1:].mean() == pytest.approx(ap, abs=4e-3)
    assert curves.num_bags == len(bags)


@given(BAGS)
def test_localization_curves_are_fractions_and_sensitivity_increases(bags):
    curves = localization_curves(*tensors(bags))
    for curve in (curves.sensitivity, curves.precision):
        assert ((curve >= 0) & (curve <= 1)).all()
    assert (np.diff(curves.sensitivity) >= -1e-12).all()
    assert curves.sensitivity[-1] == 1
    assert curves.precision[-1] > 0


def test_localization_curves_count_each_bag_once():
    good, bad = torch.tensor([0.9, 0.1]), torch.tensor([1e-6, 2e-6] * 50)
    labels = [torch.tensor([1, 0]), torch.tensor([1, 0] * 50)]
    curves = localization_curves([good, bad], labels, num_points=3)
    assert curves.sensitivity.tolist() == [0.5, 0.5, 1.0]
    assert curves.precision.tolist() == [0.5, 0.75, 0.75]  # the highest score of the long bag is a negative


def test_localization_curves_exclude_bags_with_one_label():
    scores, labels = torch.tensor([0.9, 0.1]), torch.tensor([1, 0])
    assert localization_curves([scores, scores], [labels, torch.tensor([0, 0])]).num_bags == 1
    with pytest.raises(ValueError, match="`labels` must be of both kinds in one bag at least, got none in 1 bags"):
        localization_curves([scores], [torch.tensor([1, 1])])
    with pytest.raises(ValueError, match=r"`labels` must be as many as `scores` \(1\), got 0"):
        localization_curves([scores], [])


RANKED_LABELS = torch.tensor([0, 1, 1, 0, 1])
TIED_BAGS = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=10).map(
    lambda bag: (torch.tensor([s for s, _ in bag]).float(), torch.tensor([y for _, y in bag]))
)


def test_pointing_game_by_hand():
    assert pointing_game(torch.tensor([0.1, 0.2, 0.9, 0.3, 0.4]), RANKED_LABELS) == 1
    assert pointing_game(torch.tensor([0.5, 0.2, 0.1, 0.3, 0.4]), RANKED_LABELS) == 0
    assert pointing_game(torch.tensor([0.5, 0.5, 0.1, 0.5, 0.4]), RANKED_LABELS) == pytest.approx(1 / 3)


def test_precision_at_recall_by_hand():
    """In order 0 1 1 0 1: precision 0, 1/2, 2/3, 2/4, 3/5 at recall 0, 1/3, 2/3, 2/3, 1."""
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
    precision = [precision_at_recall(scores, RANKED_LABELS, r) for r in (0.05, 1 / 3, 2 / 3, 0.67, 1)]
    assert precision == pytest.approx(
        [2 / 3, 2 / 3, 2 / 3, 3 / 5, 3 / 5]  # the best at or beyond the recall, not that of the step
    )
    assert precision_at_recall(torch.tensor([0.1, 0.9, 0.5, 0.6, 0.5]), RANKED_LABELS, 0.5) == pytest.approx(3 / 4)


def test_precision_at_recall_has_a_tolerance():
    labels = torch.arange(10) % 11 < 10
    labels = torch.cat([labels, torch.zeros(10, dtype=torch.bool)])
    scores = torch.cat([torch.tensor([9.0] * 3 + [0.0] * 7), torch.ones(10)])
    assert precision_at_recall(scores, labels, 0.1 + 0.2) == 1  # 0.30000000000000004


@given(TIED_BAGS, st.floats(0.01, 1))
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


@given(TIED_BAGS, st.randoms(use_true_random=False))
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


def test_localization_skill_and_ranking_metrics_name_invalid_arguments():
    with pytest.raises(ValueError, match=r"`labels` must have the shape \(N,\) of `scores` \(5,\), got \(4,\)"):
        pointing_game(torch.rand(5), torch.ones(4))
    with pytest.raises(ValueError, match="`scores` must be finite, got tensor"):
        precision_at_recall(torch.tensor([0.5, math.nan]), torch.tensor([0, 1]), 0.5)
    for recall in (0, 1.1, math.nan):
        with pytest.raises(ValueError, match=rf"`recall` must be in \(0, 1\], got {recall}"):
            precision_at_recall(torch.rand(5), RANKED_LABELS, recall)
    with pytest.raises(ValueError, match=r"`center_auroc` must be in \[0, 1\], got 1.5"):
        localization_skill(0.5, 1.5)
    with pytest.raises(ValueError, match=r"`auroc` must be in \[0, 1\], got -0.1"):
        localization_skill(-0.1, 0.5)
