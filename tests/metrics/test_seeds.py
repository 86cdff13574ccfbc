"""Tables over seeds, and two methods on the same bags of several seeds."""

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


def test_bags_have_the_sample_sd_and_localisation_the_population_sd():
    """Published seeds of chest ABMIL, .675 / .472 / .526: their mean is .558, population sd .086, sample sd .105."""
    found = seed_summary(
        {s: {"bag_auroc": v, "instance_auroc": v} for s, v in ((1001, 0.675), (2001, 0.472), (3001, 0.526))}
    )
    assert found["values"]["instance_auroc"] == pytest.approx(0.5577, abs=1e-4)
    assert found["sd"]["instance_auroc"] == pytest.approx(0.0859, abs=1e-4)
    assert found["sd"]["bag_auroc"] == pytest.approx(0.0859 * math.sqrt(3 / 2), abs=1e-4)
    assert found["sd_kind"] == {"bag_auroc": "sample", "instance_auroc": "population"}
    assert found["seeds"][2001]["bag_auroc"] == 0.472


def test_one_seed_has_no_sd_and_a_missing_value_no_mean():
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
def test_what_can_not_be_summed_up_is_named(seeds, message):
    with pytest.raises(ValueError, match=message):
        seed_summary(seeds)


def test_a_seed_counts_once_however_many_bags_it_has():
    a = {1: rows([1.0]), 2: rows([0.5, 0.5, 0.5])}
    b = {1: rows([0.5]), 2: rows([0.5, 0.5, 0.5])}
    assert compare_over_seeds(a, b, NAMES)["instance_auroc"]["difference"] == pytest.approx(0.25)


def test_patients_are_drawn_with_all_their_bags():
    """Two patients, one better by 1 and one worse by 1: half of the draws are one of them alone, whole."""
    values, patients = [1.0] * 20 + [0.0] * 20, ["p"] * 20 + ["q"] * 20
    found = compare_over_seeds({1: rows(values, patients)}, {1: rows([0.5] * 40, patients)}, NAMES)
    assert (found["instance_auroc"]["low"], found["instance_auroc"]["high"]) == (-0.5, 0.5)
    assert found["over"] == {"num_bags": 40, "num_patients": 2}


def test_bags_without_a_value_are_left_out():
    a, b = rows([0.9, math.nan]), rows([0.8, math.nan])
    found = compare_over_seeds({1: a}, {1: b}, NAMES)
    assert found["instance_auroc"]["difference"] == pytest.approx(0.1)
    assert found["over"]["num_bags"] == 1


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8), st.randoms())
def test_the_order_of_bags_does_not_matter(values, random):
    a, b = rows(values), rows(np.roll(values, 1).tolist())
    mixed = random.sample(b, len(b))
    assert compare_over_seeds({1: a}, {1: b}, NAMES, 20) == compare_over_seeds({1: a}, {1: mixed}, NAMES, 20)


def test_other_bags_are_refused():
    with pytest.raises(ValueError, match="`rows_b` must be of the same bags as `rows_a`, got 1 and 2, or other names"):
        compare_over_seeds({1: rows([0.5, 0.6])}, {1: rows([0.5])}, NAMES)
    with pytest.raises(ValueError, match="`rows_b` must be of the same bags as `rows_a`, got 1 and 1, or other names"):
        compare_over_seeds({1: rows([0.5])}, {2: rows([0.5])}, NAMES)
    with pytest.raises(ValueError, match="`rows_a` must have a bag with values, got none"):
        compare_over_seeds({1: rows([math.nan])}, {1: rows([math.nan])}, NAMES)
