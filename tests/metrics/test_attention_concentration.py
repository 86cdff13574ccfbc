"""Tests of measures of the concentration of attention, and of the curve of its mass."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_mil_ext.metrics import AttentionMassMetric, attention_mass, mass_curve

weights = st.lists(st.floats(0.01, 1), min_size=1, max_size=12).map(lambda w: torch.tensor(w, dtype=torch.float64))


@given(st.lists(weights, min_size=1, max_size=4))
def test_mass_curve_is_a_mean_that_increases_to_one_above_uniform(bags):
    curve = mass_curve(bags, longest=12)
    by_hand = sum((bag / bag.sum()).sort(descending=True).values[:3].sum().item() for bag in bags) / len(bags)
    assert curve.mass[2].item() == pytest.approx(by_hand)
    assert curve.mass[-1].item() == pytest.approx(1)
    assert (curve.mass.diff() >= -1e-9).all()
    assert (curve.mass >= curve.uniform - 1e-9).all()
    assert curve.num_bags == len(bags)
    gini = sum(attention_mass(bag)["gini"] for bag in bags) / len(bags)
    assert curve.summary["gini"] == pytest.approx(gini)


def test_mass_curve_of_equal_weights_is_uniform():
    curve = mass_curve([torch.full((4,), 0.25), torch.full((2,), 0.5)], longest=4)
    assert curve.uniform.tolist() == pytest.approx([0.375, 0.75, 0.875, 1])
    assert curve.to_dict()["mass"] == pytest.approx([0.375, 0.75, 0.875, 1])
    assert curve.summary["effective_number"] == pytest.approx(3)


def test_mass_curve_names_invalid_arguments():
    with pytest.raises(ValueError, match="`bags` must have the attention of at least one bag, got none"):
        mass_curve([])
    with pytest.raises(ValueError, match="`longest` must be a positive integer, got 0"):
        mass_curve([torch.ones(2)], longest=0)


many_weights = st.lists(st.floats(0.001, 1), min_size=1, max_size=40).map(
    lambda w: torch.tensor(w, dtype=torch.float64)
)


def test_attention_mass_by_hand():
    mass = attention_mass(torch.tensor([0.1, 0.5, 0.1, 0.3]), top=(1, 2, 9), quantiles=(0.5, 0.8, 0.9, 1.0))
    assert [mass[f"top_{k}"] for k in (1, 2, 9)] == pytest.approx([0.5, 0.8, 1.0])
    assert [mass[f"coverage_{q}"] for q in (0.5, 0.8, 0.9, 1.0)] == [1, 2, 3, 4]
    assert mass["coverage_ratio_0.8"] == 0.5
    entropy = -(0.5 * math.log(0.5) + 0.3 * math.log(0.3) + 0.2 * math.log(0.1))
    assert mass["entropy"] == pytest.approx(entropy)
    assert mass["entropy_ratio"] == pytest.approx(entropy / math.log(4))
    assert mass["effective_entropy"] == pytest.approx(math.exp(entropy))
    assert mass["effective_number"] == pytest.approx(1 / 0.36)
    # mean absolute difference over twice the mean: pairs .4 .2 .0 .2 .4 .2, doubled, over 16 and 2 / 4
    assert mass["gini"] == pytest.approx(2 * 1.4 / 16 / 0.5)
    assert mass["peak"] == pytest.approx(2.0)


def test_attention_mass_of_two_instances_has_the_ratio_of_their_entropy():
    entropy = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    assert attention_mass(torch.tensor([0.9, 0.1]))["entropy_ratio"] == pytest.approx(entropy / math.log(2))


@given(st.integers(1, 50))
def test_attention_mass_of_uniform_attention(n):
    mass = attention_mass(torch.full((n,), 1 / n))
    assert mass["effective_number"] == pytest.approx(n)
    assert mass["effective_entropy"] == pytest.approx(n, rel=1e-6)
    assert (mass["entropy_ratio"], mass["gini"], mass["peak"]) == pytest.approx((1, 0, 1), abs=1e-6)
    assert mass["coverage_0.9"] == math.ceil(0.9 * n - 1e-5)


@given(st.integers(2, 50))
def test_attention_mass_of_one_hot_attention(n):
    mass = attention_mass(torch.eye(n)[n // 2])
    assert (mass["effective_number"], mass["coverage_0.95"], mass["top_1"], mass["entropy"]) == (1, 1, 1, 0)
    assert (mass["gini"], mass["peak"]) == pytest.approx((1 - 1 / n, n))


@given(many_weights, st.floats(0.1, 10), st.integers(0, 99))
def test_attention_mass_is_invariant_to_scale_and_order_and_bounded(w, scale, seed):
    order = torch.randperm(len(w), generator=torch.Generator().manual_seed(seed))
    mass = attention_mass(w)
    assert attention_mass(w[order] * scale) == pytest.approx(mass, rel=1e-6, abs=1e-9)
    assert 1 - 1e-9 <= mass["effective_number"] <= mass["effective_entropy"] + 1e-5 <= len(w) + 1e-4
    assert mass["top_1"] <= mass["top_5"] + 1e-12 <= mass["top_10"] + 2e-12
    assert -1e-9 <= mass["gini"] < 1


def test_attention_mass_metric_is_the_mean_over_bags():
    metric = AttentionMassMetric("effective_number")
    metric(y_pred=[torch.ones(4), torch.eye(3)[0]])
    assert metric.aggregate().item() == pytest.approx(2.5)
    assert AttentionMassMetric("top_3").metric == "top_3"
    assert AttentionMassMetric("coverage_ratio_0.25").metric == "coverage_ratio_0.25"


@pytest.mark.parametrize(
    "bad", [torch.zeros(3), torch.tensor([0.5, -0.1]), torch.ones(0), torch.ones(2, 2), torch.tensor([math.nan])]
)
def test_attention_mass_refuses_invalid_attention(bad):
    with pytest.raises(ValueError, match=r"`attention` must be \(N,\) finite weights >= 0 that sum to more than 0"):
        attention_mass(bad)


@pytest.mark.parametrize("name", ["top_0", "top_x", "coverage_2", "coverage_x", "mean", "top"])
def test_attention_mass_metric_names_unknown_metrics(name):
    with pytest.raises(ValueError, match="`metric` must be top_<k>, coverage_<q>"):
        AttentionMassMetric(name)
