"""Attention mass of the top k instances."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_mil_ext.metrics import attention_mass, mass_curve

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
