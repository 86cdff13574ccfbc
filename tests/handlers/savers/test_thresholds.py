"""Tests of thresholds at which probabilities become a class."""

import pytest

from monai_mil_ext.handlers.savers.thresholds import at_operating_points, threshold_text

NAMES = ["no tumor", "tumor"]


@pytest.mark.parametrize(
    ("probability", "options", "expected"),
    [
        ([0.52, 0.48], {"class_names": NAMES}, "threshold 0.5: no tumor"),
        ([0.48, 0.52], {"class_names": NAMES}, "threshold 0.5: tumor"),
        ([0.5, 0.5], {"class_names": NAMES}, "threshold 0.5: no tumor"),
        ([0.48, 0.52], {}, "threshold 0.5: class 1"),
        ([0.2, 0.3, 0.5], {}, ""),
        ([0.9, 0.8], {"task": "survival"}, ""),
        ([0.9, 0.2, 0.8], {"task": "multilabel"}, "threshold 0.5 of each"),
    ],
)
def test_threshold_text_says_which_class_is_predicted(probability, options, expected):
    assert threshold_text(probability, **options) == expected


def test_operating_points_take_the_place_of_one_half():
    points = [
        {"name": "screening", "class_name": "tumor", "threshold": 0.2},
        {"name": "", "class_name": "tumor", "threshold": 0.3},
        {"name": "other", "class_name": "cyst", "threshold": 0.1},
    ]
    expected = [points[0] | {"is_positive": True}, points[1] | {"is_positive": True}]
    assert at_operating_points([0.7, 0.3], NAMES, points) == expected
    assert at_operating_points([0.7, 0.3], None, points) == []
    text = threshold_text([0.75, 0.25], class_names=NAMES, points=points)
    assert text == "threshold 0.2, screening: tumor; threshold 0.3: no tumor"


def test_operating_point_of_one_of_several_classes():
    point = {"name": "a", "class_name": "bleeding", "threshold": 0.4}
    text = threshold_text([0.5, 0.2, 0.3], class_names=["none", "bleeding", "tumor"], points=[point])
    assert text == "threshold 0.4, a: not bleeding"
