"""Tests of thresholds at which probabilities become a class."""

import pytest

from monai_mil_ext.handlers.savers.thresholds import at_operating_points, decided_classes, threshold_text

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
        ([0.9], {"task": "multilabel"}, "threshold 0.5"),
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


@pytest.mark.parametrize(
    ("probability", "task", "points", "expected"),
    [
        ([0.7, 0.3], "classification", [("tumor", 0.3)], 1),
        ([0.71, 0.29], "classification", [("tumor", 0.3)], 0),
        ([0.3, 0.7], "classification", [("tumor", 0.9)], 0),
        ([0.3, 0.7], "classification", [("no tumor", 0.2)], 0),
        ([0.3, 0.7], "classification", [("tumor", 0.9), ("tumor", 0.1)], 0),  # the first decides
        ([0.3, 0.7], "classification", [("cyst", 0.9)], 1),
        ([0.3, 0.7], "multilabel", [("no tumor", 0.2)], [1, 1]),
        ([0.3, 0.7], "multilabel", [("tumor", 0.8), ("tumor", 0.1)], [0, 0]),
    ],
)
def test_decided_classes_are_those_at_the_first_operating_point(probability, task, points, expected):
    points = [{"class_name": name, "threshold": threshold} for name, threshold in points]
    assert decided_classes(probability, task, NAMES, points) == expected
    assert decided_classes(probability, task, None, points) == decided_classes(probability, task)


def test_operating_points_of_several_exclusive_classes_decide_nothing():
    names, points = ["a", "b", "c"], [{"class_name": "b", "threshold": 0.1}]
    assert decided_classes([0.5, 0.2, 0.3], "classification", names, points) == 0
    assert decided_classes([61.5], "regression", None, points) is None
