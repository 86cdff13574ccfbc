"""Bootstrap resampling."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_mil_ext.metrics.bootstrap import percentile_interval, resampled_rows


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
