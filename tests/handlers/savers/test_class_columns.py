"""Tests of the columns of a prediction."""

import pytest

from monai_mil_ext.handlers.savers.class_columns import class_columns, output_entry, recorded_output


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
    assert class_columns([0.9, 0.4], None, "survival") == {"survival_0": 0.9, "survival_1": 0.4}
    assert class_columns([0.9, 0.4], None, "survival", bin_edges=[6.5, None]) == {
        "survival_6.5": 0.9,
        "survival_inf": 0.4,
    }


def test_class_columns_of_values_and_risks_are_no_probabilities():
    assert class_columns([61.5], None, "regression") == {"value": 61.5}
    assert class_columns([61.5, -2.0], None, "regression") == {"value_0": 61.5, "value_1": -2.0}
    assert class_columns([-0.5], None, "cox") == {"risk": -0.5}


def test_class_columns_take_the_class_at_the_operating_point():
    point = {"class_name": "b", "threshold": 0.2}
    assert class_columns([0.7, 0.3], ["a", "b"], points=[point])["predicted_class"] == "b"
    assert class_columns([0.9, 0.1], ["a", "b"], points=[point])["predicted_class"] == "a"


@pytest.mark.parametrize(
    ("output", "task", "entry"),
    [
        ([0.25, 0.75], "classification", {"probability": [0.25, 0.75], "prediction": 1}),
        ([0.9, 0.4], "multilabel", {"probability": [0.9, 0.4], "prediction": [1, 0]}),
        ([0.9, 0.4], "survival", {"survival": [0.9, 0.4]}),
        ([61.5], "regression", {"value": 61.5}),
        ([61.5, 2.0], "regression", {"value": [61.5, 2.0]}),
        ([0.5], "cox", {"risk": 0.5, "unit": "logarithm of the hazard, relative to other cases"}),
    ],
)
def test_recorded_output_is_that_of_its_entry(output, task, entry):
    assert output_entry(output, task) == {"task": task, **entry}
    assert recorded_output(output_entry(output, task)) == output
