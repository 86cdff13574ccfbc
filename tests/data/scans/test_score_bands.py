"""Tests of ScoreBands: bands of slices by rank or score."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_mil_ext.data import ScoreBands

SCORES = np.array([0.05, 0.3, 0.3, 0.0, 0.25, 0.1])


def test_score_bands_by_rank_with_ties():
    assert ScoreBands(top_k=(1, 4))(SCORES).tolist() == [0, 1, 2, 0, 2, 2]
    assert ScoreBands(top_k=(1, 4)).names == ["slice of rank 1", "slices ranked 2 to 4"]


def test_score_bands_by_score_include_the_threshold():
    assert ScoreBands(thresholds=(0.25, 0.1))(SCORES).tolist() == [0, 1, 1, 0, 1, 2]
    assert ScoreBands(thresholds=(0.25, 0.1)).names == ["score of at least 0.25", "score from 0.1 on"]


def test_score_bands_omit_scores_of_zero():
    assert ScoreBands(top_k=(9,))(np.array([0.0, 0.2, 0.0])).tolist() == [0, 1, 0]


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=20), st.sets(st.integers(1, 25), min_size=1, max_size=4))
def test_score_bands_names_agree_with_the_ranks(scores, ranks):
    top_k = sorted(ranks)
    band = ScoreBands(top_k=top_k)(np.array(scores))
    sizes = np.diff([0, *np.minimum(top_k, len(scores))])
    assert [int((band == i).sum()) for i in range(1, len(top_k) + 1)] == sizes.tolist()
    for i in range(1, len(top_k)):
        if (band == i + 1).any():
            assert np.array(scores)[band == i].min() >= np.array(scores)[band == i + 1].max()


@pytest.mark.parametrize("bad", [{"top_k": ()}, {"top_k": (4, 4)}, {"top_k": (0,)}, {"thresholds": (0.1, 0.2)}])
def test_score_bands_refuse_invalid_limits(bad):
    with pytest.raises(ValueError, match=r"`(top_k|thresholds)` must be positive and (increasing|decreasing), got"):
        ScoreBands(**bad)
