"""Tests of the summary over seeds, and of the comparison of two methods on the same bags."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_mil_ext.metrics import compare_over_seeds, seed_summary

NAMES = ["instance_auroc"]


def rows(values, patients=None, shift=0.0):
    patients = patients or [f"p{i}" for i in range(len(values))]
    return [
        {"case_id": f"c{i}", "patient": p, "instance_auroc": v + shift}
        for i, (v, p) in enumerate(zip(values, patients, strict=True))
    ]


def test_seed_summary_uses_sample_sd_of_bags_and_population_sd_of_localization():
    """Published seeds of chest ABMIL, .675 / .472 / .526: their mean is .558, population sd .086, sample sd .105."""
    result = seed_summary(
        {s: {"bag_auroc": v, "instance_auroc": v} for s, v in ((1001, 0.675), (2001, 0.472), (3001, 0.526))}
    )
    assert result["values"]["instance_auroc"] == pytest.approx(0.5577, abs=1e-4)
    assert result["sd"]["instance_auroc"] == pytest.approx(0.0859, abs=1e-4)
    assert result["sd"]["bag_auroc"] == pytest.approx(0.0859 * math.sqrt(3 / 2), abs=1e-4)
    assert result["sd_kind"] == {"bag_auroc": "sample", "instance_auroc": "population"}
    assert result["seeds"][2001]["bag_auroc"] == 0.472


def test_seed_summary_of_one_seed_and_of_missing_values():
    assert math.isnan(seed_summary({1: {"bag_auroc": 0.5}})["sd"]["bag_auroc"])
    assert math.isnan(seed_summary({1: {"instance_auroc": 0.5}})["sd"]["instance_auroc"])
    some = seed_summary({1: {"bag_auroc": 0.5}, 2: {"bag_auroc": math.nan}})
    assert math.isnan(some["values"]["bag_auroc"])


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ({}, "`seeds` must have the values of at least one seed, got none"),
        ({1: {"a": 0.0}, 2: {"b": 0.0}}, r"`seeds` must all have the values \['a'\], got \['b'\] of seed 2"),
    ],
)
def test_seed_summary_names_invalid_arguments(seeds, message):
    with pytest.raises(ValueError, match=message):
        seed_summary(seeds)


def test_compare_over_seeds_counts_each_seed_once():
    a = {1: rows([1.0]), 2: rows([0.5, 0.5, 0.5])}
    b = {1: rows([0.5]), 2: rows([0.5, 0.5, 0.5])}
    assert compare_over_seeds(a, b, NAMES)["instance_auroc"]["difference"] == pytest.approx(0.25)


def test_compare_over_seeds_draws_patients_with_all_bags():
    """Two patients, one better by 1, one worse by 1: half of the draws hold only one of them."""
    values, patients = [1.0] * 20 + [0.0] * 20, ["p"] * 20 + ["q"] * 20
    result = compare_over_seeds({1: rows(values, patients)}, {1: rows([0.5] * 40, patients)}, NAMES)
    assert (result["instance_auroc"]["low"], result["instance_auroc"]["high"]) == (-0.5, 0.5)
    assert result["over"] == {"num_bags": 40, "num_patients": 2}


def test_compare_over_seeds_excludes_bags_without_a_value():
    a, b = rows([0.9, math.nan]), rows([0.8, math.nan])
    result = compare_over_seeds({1: a}, {1: b}, NAMES)
    assert result["instance_auroc"]["difference"] == pytest.approx(0.1)
    assert result["over"]["num_bags"] == 1


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8), st.randoms())
def test_compare_over_seeds_does_not_depend_on_the_order_of_bags(values, random):
    a, b = rows(values), rows(np.roll(values, 1).tolist())
    mixed = random.sample(b, len(b))
    assert compare_over_seeds({1: a}, {1: b}, NAMES, 20) == compare_over_seeds({1: a}, {1: mixed}, NAMES, 20)


def test_compare_over_seeds_refuses_different_bags():
    with pytest.raises(ValueError, match="`rows_b` must be of the same bags as `rows_a`, got 1 and 2, or other names"):
        compare_over_seeds({1: rows([0.5, 0.6])}, {1: rows([0.5])}, NAMES)
    with pytest.raises(ValueError, match="`rows_b` must be of the same bags as `rows_a`, got 1 and 1, or other names"):
        compare_over_seeds({1: rows([0.5])}, {2: rows([0.5])}, NAMES)
    with pytest.raises(ValueError, match="`rows_a` must have a bag with values, got none"):
        compare_over_seeds({1: rows([math.nan])}, {1: rows([math.nan])}, NAMES)
