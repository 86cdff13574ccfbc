"""Tests of the options of drawn scans."""

import pytest

from monai_mil_ext.data import LesionOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "`size` must be a positive integer, got 0"),
        ({"pixel_mm": -1.0}, "`pixel_mm` must be positive and finite, got -1.0"),
        ({"texture": float("nan")}, "`texture` must be finite and not negative, got nan"),
        ({"gamma": (1.2, 0.8)}, r"`gamma` must be two numbers from 0, the lower one first, got \(1.2, 0.8\)"),
        ({"noise": (0.1,)}, r"`noise` must be two numbers from 0, the lower one first, got \(0.1,\)"),
        ({"slice_mm": (0.0, 4.0)}, "`slice_mm` must be positive and finite, got 0.0"),
    ],
)
def test_options_that_can_not_be_drawn_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LesionOptions(**options)


def test_a_range_may_be_one_value():
    assert LesionOptions(distractors=(0, 0), gamma=(1.0, 1.0)).distractors == (0, 0)
