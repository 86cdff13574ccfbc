"""Rows drawn again."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_mil_ext.metrics.resampling import percentile_interval, resampled_rows


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12), st.integers(0, 99))
@settings(max_examples=50)
def test_a_sample_is_as_many_whole_groups_as_there_are(groups, seed):
    size = Counter(groups)
    for rows in resampled_rows(len(groups), groups, 5, seed):
        times = Counter(rows)
        drawn = {g: {times[i] for i, other in enumerate(groups) if other == g} for g in size}
        assert all(len(each) == 1 for each in drawn.values())  # all rows of a group equally often
        assert sum(each.pop() for each in drawn.values()) == len(size)


def test_every_row_is_drawn_once_on_average_and_the_seed_decides():
    samples = list(resampled_rows(5, None, 4000, 0))
    assert all(len(rows) == 5 for rows in samples)
    assert np.bincount(np.concatenate(samples)) / 4000 == pytest.approx(np.ones(5), abs=0.06)
    assert samples[:9] == list(resampled_rows(5, None, 9, 0)) != list(resampled_rows(5, None, 9, 1))


def test_the_draw_stays_what_it_was():
    """Published intervals rest on it: NumPy's generator, one call a sample."""
    rng = np.random.default_rng(7)
    assert list(resampled_rows(4, None, 3, 7)) == [rng.integers(0, 4, 4).tolist() for _ in range(3)]


def test_the_middle_95_percent_of_what_is_finite():
    assert percentile_interval([*range(101), math.nan, math.inf]) == pytest.approx((2.5, 97.5))
    assert all(math.isnan(v) for v in percentile_interval([math.nan]))
