"""Tests of instance sets by split conformal prediction."""

import json
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_mil_ext.metrics import ConformalInstances
from monai_mil_ext.metrics.conformal.conformal_instances import bag_levels, prefix_levels, quantile_index

from .bags import random_bags

OPTIONS = list(product(("any", "all"), ("rank", "mass")))


def is_right(chosen, labels, target):
    held = (labels[chosen.indices[: chosen.num_needed]] > 0).sum()
    return bool(held > 0 if target == "any" else held == (labels > 0).sum())


def levels_of(scores, labels, target="any", by="rank"):
    return bag_levels([torch.tensor(scores)], [torch.tensor(labels)], target, by)


@pytest.mark.parametrize(
    ("n", "alpha", "index"), [(9, 0.1, 9), (19, 0.05, 19), (29, 0.1, 27), (9, 0.7, 3), (99, 0.1, 90)]
)
def test_the_quantile_is_exact(n, alpha, index):
    assert quantile_index(n, alpha) == index


@given(st.integers(0, 400), st.integers(1, 99))
def test_the_quantile_equals_its_formula_in_integers(n, percent):
    index = quantile_index(n, percent / 100)
    assert index == -((-(n + 1) * (100 - percent)) // 100)
    assert Fraction(index, n + 1) >= 1 - Fraction(percent, 100) > Fraction(index - 1, n + 1)


@pytest.mark.parametrize(("n", "alpha"), [(9, 0.1), (19, 0.1), (39, 0.05), (7, 0.25)])
def test_each_left_out_bag_is_covered_exactly_as_often_as_stated(n, alpha):
    """Of n + 1 bags with levels 1 to n + 1, each left out once, exactly k are right; one index less is too few."""
    bags = [torch.arange(n + 1, 0, -1.0)] * (n + 1)
    labels = list(torch.eye(n + 1, dtype=torch.long))
    right = 0
    for i in range(n + 1):
        rest = [j for j in range(n + 1) if j != i]
        sets = ConformalInstances(alpha, max_share=1).fit([bags[j] for j in rest], [labels[j] for j in rest])
        right += is_right(sets.select(bags[i]), labels[i], "any")
    assert right == quantile_index(n, alpha)
    assert (right - 1) / (n + 1) < 1 - alpha <= right / (n + 1)


@pytest.mark.parametrize(("target", "by"), OPTIONS)
@pytest.mark.parametrize("decimals", [None, 0], ids=["continuous", "tied"])
def test_sets_are_right_as_often_as_stated_in_new_bags(target, by, decimals):
    """Over 200 calibrations with 9 bags, of which the smallest guarantees 0.9; with scores of few values too."""
    scores, labels = random_bags(200 * 19, decimals=decimals)
    rate = []
    for start in range(0, len(scores), 19):
        s, y = scores[start : start + 19], labels[start : start + 19]
        sets = ConformalInstances(0.1, target, by, max_share=1).fit(s[:9], y[:9])
        rate += [is_right(sets.select(a), b, target) for a, b in zip(s[9:], y[9:], strict=True)]
    deviation = (0.09 / 2000 + 0.09 / 11 / 200) ** 0.5  # of new bags, and of calibrations, whose coverage is Beta(9, 1)
    assert np.mean(rate) >= 0.9 - 3 * deviation
    if decimals is None and by == "mass" and target == "all":  # without ties: not more often than 9 / 10 either
        assert np.mean(rate) <= 0.9 + 3 * deviation


@given(st.integers(0, 999), st.sampled_from(OPTIONS), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_a_calibration_bag_is_right_in_any_order_iff_its_level_is_reached(seed, option, high):
    target, by = option
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, high, (9,), generator=generator).float() + 1
    labels = (torch.rand(9, generator=generator) < 0.3).long()
    labels[0] = 1
    level = bag_levels([scores], [labels], target, by)[0]
    values = scores.sort(descending=True).values
    for threshold in prefix_levels(values, by).tolist():
        sets = ConformalInstances.from_dict(
            {**ConformalInstances(0.5, target, by, 1).to_dict(), "num_bags": 1, "threshold": threshold}
        )
        orders = [torch.randperm(9, generator=generator) for _ in range(3)]
        orders += [labels.argsort(stable=True)]  # negatives first: the worst order
        right = [is_right(sets.select(scores[order]), labels[order], target) for order in orders]
        assert all(right) if level <= threshold else not right[-1]


def test_levels_by_hand():
    scores, labels = [0.4, 0.1, 0.3, 0.2], [0, 0, 1, 1]
    assert levels_of(scores, labels) == [2.0]
    assert levels_of(scores, labels, "all") == [3.0]
    assert levels_of(scores, labels, "any", "mass") == pytest.approx([0.4])
    assert levels_of(scores, labels, "all", "mass") == pytest.approx([0.7])


def test_equal_scores_count_against_the_set():
    assert levels_of([1.0] * 6, [0, 1, 1, 0, 0, 0]) == [5.0]  # the four negatives may come first
    assert levels_of([1.0] * 6, [0, 1, 1, 0, 0, 0], "all") == [6.0]
    assert levels_of([2.0, 2.0, 1.0], [1, 1, 0]) == [1.0]  # either of the first two is right


def test_select_keeps_the_order_of_the_bag_for_equal_scores():
    sets = ConformalInstances(0.5, max_share=1).fit([torch.tensor([0.6, 0.4])] * 3, [torch.tensor([0, 1])] * 3)
    assert sets.select(torch.tensor([0.1, 0.3, 0.3, 0.3])).indices.tolist() == [1, 2]


def test_sets_by_mass_are_smaller_where_scores_are_concentrated():
    scores, labels = random_bags(60)
    sets = ConformalInstances(0.1, by="mass", max_share=1).fit(scores, labels)
    peak, flat = torch.tensor([20.0, *[1.0] * 19]), torch.ones(20)
    assert sets.select(peak).num_needed < sets.select(flat).num_needed


@pytest.mark.parametrize(("alpha", "fewest"), [(0.1, 9), (0.05, 19), (0.2, 4), (0.3, 3)])
def test_too_few_calibration_bags_abstain(alpha, fewest):
    scores, labels = random_bags(fewest, lift=9)
    sets = ConformalInstances(alpha).fit(scores[1:], labels[1:])
    chosen = sets.select(scores[0])
    assert (sets.min_bags, sets.threshold, chosen.abstained) == (fewest, None, True)
    assert sorted(chosen.indices.tolist()) == list(range(len(scores[0])))
    assert f"needs {fewest} calibration scans with a lesion, got {fewest - 1}" in sets.describe(chosen)
    assert ConformalInstances(alpha).fit(scores, labels).threshold is not None


def test_a_set_above_the_limit_abstains_and_shows_all():
    sets = ConformalInstances(0.1, max_share=0.5).fit([torch.arange(6, 0, -1.0)] * 9, [torch.eye(6).long()[2]] * 9)
    assert sets.select(torch.rand(6)).indices.shape == (3,)  # exactly the limit
    chosen = sets.select(torch.rand(5))
    assert (chosen.abstained, chosen.num_needed, len(chosen.indices)) == (True, 3, 5)
    assert sets.describe(chosen) == (
        "No set of slices: to include one slice with a lesion with a probability of 90 %, 3 of 5 slices are needed, "
        "more than 50 % of the scan."
    )


def test_the_sentence_of_a_set():
    sets = ConformalInstances(0.025, "all").fit([torch.arange(9, 0, -1.0)] * 39, [torch.eye(9).long()[1]] * 39)
    assert sets.describe(sets.select(torch.rand(9)), "tile", "slide") == (
        "If the slide has a lesion, these 2 of 9 tiles include every tile with a lesion with a probability of at "
        "least 97.5 %."
    )


def test_bags_without_a_positive_instance_and_further_bags_of_a_patient_do_not_count():
    scores, labels = random_bags(20, seed=3)
    none = [torch.zeros_like(y) for y in labels]
    sets = ConformalInstances(0.1).fit(scores + scores, labels + none)
    assert (sets.num_bags, sets.threshold) == (20, ConformalInstances(0.1).fit(scores, labels).threshold)
    grouped = ConformalInstances(0.1).fit(scores, labels, [i // 2 for i in range(20)])
    pairs = torch.tensor(bag_levels(scores, labels, "any", "rank")).view(10, 2).max(1).values
    assert (grouped.num_bags, grouped.threshold) == (10, float(pairs.max()))


def test_scores_of_several_heads_are_averaged():
    scores = torch.tensor([[0.5, 0.1], [0.3, 0.1], [0.2, 0.8]])
    sets = ConformalInstances(0.1, max_share=1).fit([scores] * 9, [torch.tensor([0, 0, 1])] * 9)
    assert sets.threshold == 1
    assert sets.select(scores).indices.tolist() == [2]


def test_sets_survive_json():
    scores, labels = random_bags(40)
    for target, by in OPTIONS:
        sets = ConformalInstances(0.1, target, by, 0.7).fit(scores, labels)
        again = ConformalInstances.from_dict(json.loads(json.dumps(sets.to_dict())))
        assert again.to_dict() == sets.to_dict()
        assert all(torch.equal(again.select(s).indices, sets.select(s).indices) for s in scores)


@pytest.mark.parametrize("alpha", [0, 1, -0.1, float("nan"), "0.1"])
def test_alpha_must_be_a_probability(alpha):
    with pytest.raises(ValueError, match="`alpha` must be in"):
        ConformalInstances(alpha)


def test_other_options_are_checked():
    with pytest.raises(ValueError, match="`max_share` must be in"):
        ConformalInstances(max_share=0)
    with pytest.raises(ValueError, match="`target` must be"):
        ConformalInstances(target="most")
    with pytest.raises(ValueError, match="`by` must be"):
        ConformalInstances(by="size")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": None}, "`threshold` must be that of 40 bags"),
        ({"threshold": float("nan")}, "`threshold` must be that of 40 bags"),
        ({"threshold": "3"}, "`threshold` must be that of 40 bags"),
        ({"num_bags": 4}, "`threshold` must be that of 4 bags"),
        ({"num_bags": -1}, "`num_bags` must be an integer"),
        ({"num_bags": 40.5}, "`num_bags` must be an integer"),
        ({"alpha": 2}, "`alpha` must be in"),
    ],
)
def test_a_changed_record_is_refused(change, message):
    values = ConformalInstances(0.1).fit(*random_bags(40)).to_dict()
    with pytest.raises(ValueError, match=message):
        ConformalInstances.from_dict({**values, **change})


def test_an_incomplete_record_is_refused():
    with pytest.raises(ValueError, match="`values` must have the calibration of instance sets, got none of"):
        ConformalInstances.from_dict({"num_bags": 3})


def test_bags_are_checked():
    sets = ConformalInstances(by="mass")
    with pytest.raises(ValueError, match="`labels` and `groups` must be as many"):
        sets.fit([torch.ones(3)], [])
    with pytest.raises(ValueError, match=r"`labels` must have the shape \(3,\)"):
        sets.fit([torch.ones(3)], [torch.ones(4)])
    with pytest.raises(ValueError, match="`scores` must be finite"):
        sets.fit([torch.tensor([1.0, float("nan")])], [torch.ones(2)])
    with pytest.raises(ValueError, match="`scores` must be finite"):
        sets.select(torch.ones(0))
    with pytest.raises(ValueError, match="`scores` must be >= 0"):
        sets.fit([torch.tensor([1.0, -1.0])], [torch.ones(2)])
