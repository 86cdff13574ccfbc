"""Tests of attention relative to uniform attention."""

import matplotlib as mpl
import numpy as np
import pytest

from monai_mil_ext.visualize import attention_ratio, is_nearly_even
from monai_mil_ext.visualize.relative_attention import RATIO_LIMITS, describe_ratio, ratio_colors, ratio_norm


def test_attention_ratio_of_uniform_attention_is_one():
    np.testing.assert_allclose(attention_ratio(np.full(7, 1 / 7)), 1)
    np.testing.assert_allclose(attention_ratio([0.5, 0.5, 0, 0]), [2, 2, 0, 0])


def test_attention_ratio_does_not_depend_on_the_sum():
    np.testing.assert_allclose(attention_ratio([3.0, 1.0]), attention_ratio([0.75, 0.25]))
    np.testing.assert_allclose(attention_ratio([0.0, 0.0]), 1)


@pytest.mark.parametrize(
    ("attention", "expected"),
    [
        (np.linspace(0.037, 0.048, 23), True),  # of a negative scan: 1.13 times uniform at most
        ([0.49, 0.51], True),
        ([0.26, 0.74], True),
        ([0.24, 0.76], False),
        (np.array([0.2, 0.5, 0.3], dtype=np.float32), False),  # 1.5 but for rounding
        (np.array([1.499, *[1] * 999]), True),
        (np.array([1.51, *[1] * 999]), False),
        ([1.0], True),
        ([0.0, 0.0], True),
    ],
)
def test_is_nearly_even_below_one_and_a_half_times_uniform(attention, expected):
    assert is_nearly_even(attention) is expected


def test_ratio_colors_are_on_one_scale_with_one_in_its_middle():
    assert RATIO_LIMITS == (0.25, 4.0)
    np.testing.assert_allclose(ratio_norm()([0.25, 0.5, 1, 2, 4]), [0, 0.25, 0.5, 0.75, 1], atol=1e-12)
    expected = np.round(np.array(mpl.colormaps["cividis"]([0.0, 0.5, 1.0]))[:, :3] * 255)
    assert (ratio_colors([0.25, 1, 4]) == expected).all()
    assert (ratio_colors([0, 0.1, 4, 50]) == expected[[0, 0, 2, 2]]).all()  # clipped


@pytest.mark.parametrize(
    ("highest", "text"),
    [
        (1.0, "at most 1 x uniform, so nearly even: its order says little"),
        (1.49, "at most 1.49 x uniform, so nearly even: its order says little"),
        (1.5, "at most 1.5 x uniform"),
        (157.6, "at most 158 x uniform"),
    ],
)
def test_describe_ratio_says_where_attention_is_nearly_even(highest, text):
    rest = (1000 - highest) / 999
    assert describe_ratio([highest, *[rest] * 999]) == f"attention: {text}"
