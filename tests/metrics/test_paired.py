"""Two models on the same bags."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_mil_ext.metrics import bootstrap_interval, paired_bootstrap

ROWS = st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=8)


def mean(rows):
    return {"mean": float(np.mean(rows))}


def test_what_is_hard_for_both_cancels():
    """Unpaired, the interval would be about 2 * 1.96 * sqrt(2) * 10 / sqrt(200) = 3.9 wide."""
    rng = np.random.default_rng(0)
    hard, noise = rng.normal(0, 10, 200), rng.normal(0, 1, 200)
    found = paired_bootstrap(hard + 0.5 + noise, hard, mean)["mean"]
    assert found["difference"] == pytest.approx(0.5 + noise.mean())
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * noise.std() / math.sqrt(200), rel=0.08)
    assert found["low"] < 0.5 < found["high"]


def test_p_is_that_of_a_normal_mean():
    """By hand: a difference 1.5 standard errors from 0 has a two-sided p of 0.134."""
    noise = np.random.default_rng(1).normal(0, 1, 300)
    noise = (noise - noise.mean()) / noise.std() + 1.5 / math.sqrt(300)
    for sign in (1, -1):
        found = paired_bootstrap(sign * noise, 0 * noise, mean, num_samples=4000)["mean"]
        assert found["p"] == pytest.approx(0.134, abs=0.025)


def test_p_counts_every_draw_of_two_rows():
    """Differences 3 and -1: draws (3, 3), (3, -1), (-1, 3), (-1, -1); one in four is negative, so p is a half."""
    assert paired_bootstrap([3.0, -1.0], [0.0, 0.0], mean, num_samples=4000)["mean"]["p"] == pytest.approx(
        0.5, abs=0.05
    )
    # differences 1 and -1: three draws of four are not above 0, but the one observed is 0 itself
    assert paired_bootstrap([1.0, -1.0], [0.0, 0.0], mean)["mean"]["p"] == 1.0
    # differences 1 and 0: a draw of 0 counts against
    assert paired_bootstrap([1.0, 0.0], [0.0, 0.0], mean, num_samples=4000)["mean"]["p"] == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("num_samples", [50, 1000])
def test_p_is_never_below_what_so_many_samples_can_tell(num_samples):
    assert paired_bootstrap([2.0, 3.0], [1.0, 1.5], mean, num_samples=num_samples)["mean"]["p"] == 1 / num_samples


@given(ROWS, st.integers(0, 9))
@settings(max_examples=40)
def test_exchanging_the_models_turns_the_difference_round(rows, seed):
    a, b = zip(*rows, strict=True)
    one, other = (paired_bootstrap(*pair, mean, num_samples=30, seed=seed)["mean"] for pair in ((a, b), (b, a)))
    assert one["difference"] == -other["difference"]
    assert (one["low"], one["high"]) == pytest.approx((-other["high"], -other["low"]))
    assert one["p"] == other["p"]
    assert paired_bootstrap(a, a, mean, num_samples=30)["mean"] == {"difference": 0, "low": 0, "high": 0, "p": 1}


@given(ROWS, st.integers(0, 9))
@settings(max_examples=40)
def test_against_nothing_it_is_the_interval_of_one_model(rows, seed):
    a, groups = [r[0] for r in rows], [i // 2 for i in range(len(rows))]
    found = paired_bootstrap(a, [0.0] * len(a), mean, groups, num_samples=30, seed=seed)["mean"]
    assert (found["low"], found["high"]) == bootstrap_interval(a, mean, groups, 30, seed)["mean"]


def test_both_get_the_same_whole_groups():
    seen = []
    paired_bootstrap(
        "abcd", "ABCD", lambda rows: seen.append("".join(rows)) or {"n": len(rows)}, "xxyy", num_samples=20
    )
    assert [a.upper() for a in seen[::2]] == seen[1::2]
    assert {"".join(sorted(a)) for a in seen[::2]} == {"aabb", "abcd", "ccdd"}


def test_samples_without_a_value_are_left_out():
    def above(rows):
        kept = [r for r in rows if r > 0]
        return {"mean": float(np.mean(kept)) if kept else math.nan, "none": math.nan}

    found = paired_bootstrap([5.0, -1.0], [4.0, -1.0], above)
    assert found["mean"]["difference"] == found["mean"]["low"] == found["mean"]["high"] == 1
    assert 1 / 1000 < found["mean"]["p"] < 1 / 600  # a quarter of the draws has no row above 0
    assert all(math.isnan(v) for v in found["none"].values())


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"`rows_b` must be as long as `rows_a` \(2\), got 1"):
        paired_bootstrap([1, 2], [1], mean)
    with pytest.raises(ValueError, match=r"`groups` must be as long as `rows_a` \(2\), got 3"):
        paired_bootstrap([1, 2], [1, 2], mean, "abc")
    with pytest.raises(ValueError, match="`rows_a` must have at least one row, got none"):
        paired_bootstrap([], [], mean)
    with pytest.raises(ValueError, match="`num_samples` must be a positive integer, got 0"):
        paired_bootstrap([1], [1], mean, num_samples=0)
