"""Tests of the bootstrap: resampling, intervals and the paired comparison of two models."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_mil_ext.metrics import bootstrap_interval, paired_bootstrap
from monai_mil_ext.metrics.bootstrap import percentile_interval, resampled_rows

ROWS = st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=8)


def mean(rows):
    return {"mean": float(np.mean(rows))}


def test_paired_bootstrap_cancels_common_variation():
    """Unpaired, the interval would be about 2 * 1.96 * sqrt(2) * 10 / sqrt(200) = 3.9 wide."""
    rng = np.random.default_rng(0)
    hard, noise = rng.normal(0, 10, 200), rng.normal(0, 1, 200)
    result = paired_bootstrap(hard + 0.5 + noise, hard, mean)["mean"]
    assert result["difference"] == pytest.approx(0.5 + noise.mean())
    assert result["high"] - result["low"] == pytest.approx(2 * 1.96 * noise.std() / math.sqrt(200), rel=0.08)
    assert result["low"] < 0.5 < result["high"]


def test_paired_bootstrap_p_is_that_of_a_normal_mean():
    """By hand: a difference 1.5 standard errors from 0 has a two-sided p of 0.134."""
    noise = np.random.default_rng(1).normal(0, 1, 300)
    noise = (noise - noise.mean()) / noise.std() + 1.5 / math.sqrt(300)
    for sign in (1, -1):
        result = paired_bootstrap(sign * noise, 0 * noise, mean, num_samples=4000)["mean"]
        assert result["p"] == pytest.approx(0.134, abs=0.025)


def test_paired_bootstrap_p_of_two_rows_by_hand():
    """Differences 3 and -1: draws (3, 3), (3, -1), (-1, 3), (-1, -1); one in four is negative, so p is a half."""
    assert paired_bootstrap([3.0, -1.0], [0.0, 0.0], mean, num_samples=4000)["mean"]["p"] == pytest.approx(
        0.5, abs=0.05
    )
    # differences 1 and -1: three draws of four are not above 0, but the observed difference is 0
    assert paired_bootstrap([1.0, -1.0], [0.0, 0.0], mean)["mean"]["p"] == 1.0
    # differences 1 and 0: a draw of 0 counts against
    assert paired_bootstrap([1.0, 0.0], [0.0, 0.0], mean, num_samples=4000)["mean"]["p"] == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("num_samples", [50, 1000])
def test_paired_bootstrap_p_is_at_least_one_over_the_samples(num_samples):
    assert paired_bootstrap([2.0, 3.0], [1.0, 1.5], mean, num_samples=num_samples)["mean"]["p"] == 1 / num_samples


@given(ROWS, st.integers(0, 9))
@settings(max_examples=40)
def test_paired_bootstrap_is_antisymmetric(rows, seed):
    a, b = zip(*rows, strict=True)
    forward, reverse = (paired_bootstrap(*pair, mean, num_samples=30, seed=seed)["mean"] for pair in ((a, b), (b, a)))
    assert forward["difference"] == -reverse["difference"]
    assert (forward["low"], forward["high"]) == pytest.approx((-reverse["high"], -reverse["low"]))
    assert forward["p"] == reverse["p"]
    assert paired_bootstrap(a, a, mean, num_samples=30)["mean"] == {"difference": 0, "low": 0, "high": 0, "p": 1}


@given(ROWS, st.integers(0, 9))
@settings(max_examples=40)
def test_paired_bootstrap_against_zero_is_bootstrap_interval(rows, seed):
    a, groups = [r[0] for r in rows], [i // 2 for i in range(len(rows))]
    result = paired_bootstrap(a, [0.0] * len(a), mean, groups, num_samples=30, seed=seed)["mean"]
    assert (result["low"], result["high"]) == bootstrap_interval(a, mean, groups, 30, seed)["mean"]


def test_paired_bootstrap_draws_the_same_groups_of_both():
    seen = []
    paired_bootstrap(
        "abcd", "ABCD", lambda rows: seen.append("".join(rows)) or {"n": len(rows)}, "xxyy", num_samples=20
    )
    assert [a.upper() for a in seen[::2]] == seen[1::2]
    assert {"".join(sorted(a)) for a in seen[::2]} == {"aabb", "abcd", "ccdd"}


def test_paired_bootstrap_excludes_samples_without_a_value():
    def above(rows):
        kept = [r for r in rows if r > 0]
        return {"mean": float(np.mean(kept)) if kept else math.nan, "none": math.nan}

    result = paired_bootstrap([5.0, -1.0], [4.0, -1.0], above)
    assert result["mean"]["difference"] == result["mean"]["low"] == result["mean"]["high"] == 1
    assert 1 / 1000 < result["mean"]["p"] < 1 / 600  # a quarter of the draws has no row above 0
    assert all(math.isnan(v) for v in result["none"].values())


def test_paired_bootstrap_names_invalid_arguments():
    with pytest.raises(ValueError, match=r"`rows_b` must be as long as `rows_a` \(2\), got 1"):
        paired_bootstrap([1, 2], [1], mean)
    with pytest.raises(ValueError, match=r"`groups` must be as long as `rows_a` \(2\), got 3"):
        paired_bootstrap([1, 2], [1, 2], mean, "abc")
    with pytest.raises(ValueError, match="`rows_a` must have at least one row, got none"):
        paired_bootstrap([], [], mean)
    with pytest.raises(ValueError, match="`num_samples` must be a positive integer, got 0"):
        paired_bootstrap([1], [1], mean, num_samples=0)


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12), st.integers(0, 99))
@settings(max_examples=50)
def test_resampled_rows_draws_whole_groups(groups, seed):
    size = Counter(groups)
    for rows in resampled_rows(len(groups), groups, 5, seed):
        times = Counter(rows)
        drawn = {g: {times[i] for i, other in enumerate(groups) if other == g} for g in size}
        assert all(len(each) == 1 for each in drawn.values())  # all rows of a group equally often
        assert sum(each.pop() for each in drawn.values()) == len(size)


def test_resampled_rows_draws_every_row_once_on_average():
    samples = list(resampled_rows(5, None, 4000, 0))
    assert all(len(rows) == 5 for rows in samples)
    assert np.bincount(np.concatenate(samples)) / 4000 == pytest.approx(np.ones(5), abs=0.06)
    assert samples[:9] == list(resampled_rows(5, None, 9, 0)) != list(resampled_rows(5, None, 9, 1))


def test_resampled_rows_are_reproducible():
    """Published intervals depend on it: NumPy's generator, one call per sample."""
    rng = np.random.default_rng(7)
    assert list(resampled_rows(4, None, 3, 7)) == [rng.integers(0, 4, 4).tolist() for _ in range(3)]


def test_percentile_interval_of_finite_values():
    assert percentile_interval([*range(101), math.nan, math.inf]) == pytest.approx((2.5, 97.5))
    assert all(math.isnan(v) for v in percentile_interval([math.nan]))
