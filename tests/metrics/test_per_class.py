"""Tests of the metrics of each class and of the confusion matrix."""

import math

import numpy as np
import pytest

from monai_mil_ext.metrics import class_values

NAMES = ["LUAD", "LUSC", "normal"]
LABEL = [0, 0, 1, 1, 2]
P = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.1, 0.8, 0.1], [0.2, 0.5, 0.3], [0.6, 0.3, 0.1]])


def test_class_values_by_hand():
    values = class_values(LABEL, P, NAMES)
    assert values["confusion_matrix"] == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]  # rows are labels
    first, second, third = values["classes"]
    assert first == pytest.approx(
        {
            "class": 0,
            "name": "LUAD",
            "num_bags": 2,
            "auroc": 5 / 6,  # of six pairs, only the one of 0.3 and 0.6 is wrong
            "auprc": (1 + 2 / 3) / 2,
            "precision": 1 / 2,
            "recall": 1 / 2,
            "f1": 1 / 2,
        }
    )
    assert (second["precision"], second["recall"], second["f1"]) == pytest.approx((2 / 3, 1, 4 / 5))
    assert (third["recall"], third["f1"]) == (0, 0)
    assert math.isnan(third["precision"])  # never predicted


def test_class_values_of_a_class_without_bags_are_undefined():
    values = class_values([0, 1], np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]]))
    absent = values["classes"][2]
    assert absent["num_bags"] == 0
    assert all(math.isnan(absent[key]) for key in ("auroc", "auprc", "precision", "recall", "f1"))
    assert "name" not in absent
    assert values["confusion_matrix"] == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_class_values_of_one_column_have_two_classes():
    two = np.array([[0.8, 0.2], [0.3, 0.7]])
    assert class_values([0, 1], two[:, 1:]) == class_values([0, 1], two)


def test_class_values_refuse_logits_and_other_numbers_of_names():
    with pytest.raises(ValueError, match=r"`probability` must be probabilities in \[0, 1\], got 1.84"):
        class_values([0, 1], np.array([[1.84], [-2.0]]))
    with pytest.raises(ValueError, match=r"`class_names` must be one for each of 3 classes, got \['LUAD'\]"):
        class_values(LABEL, P, ["LUAD"])
