"""Tests of the columns of a prediction."""

import pytest

from monai_mil_ext.handlers.savers.class_columns import class_columns


def test_class_columns_name_the_predicted_class():
    columns = class_columns([0.1, 0.7, 0.2], ["LUAD", "LUSC", "normal"])
    assert list(columns) == ["prediction", "predicted_class", "probability_0", "probability_1", "probability_2"]
    assert (columns["prediction"], columns["predicted_class"], columns["probability_1"]) == (1, "LUSC", 0.7)
    assert class_columns([0.1, 0.7, 0.2]) == {
        "prediction": 1, "probability_0": 0.1, "probability_1": 0.7, "probability_2": 0.2,
    }  # fmt: skip


@pytest.mark.parametrize(("p", "names"), [([0.9, 0.2, 0.8], "a; c"), ([0.1, 0.2, 0.3], "")])
def test_class_columns_of_several_labels_have_a_prediction_for_each(p, names):
    columns = class_columns(p, ["a", "b", "c"], "multilabel")
    assert [columns[f"prediction_{c}"] for c in range(3)] == [int(value > 0.5) for value in p]
    assert columns["predicted_class"] == names
    assert "prediction" not in columns


def test_class_columns_of_survival_predict_no_class():
    assert class_columns([0.9, 0.4], None, "survival") == {"probability_0": 0.9, "probability_1": 0.4}
