"""Tests of the prediction of an image for clients, for every task."""

import pytest

from monai_mil_ext.apps.label.output_scores import output_scores


@pytest.mark.parametrize(
    ("record", "labels", "scores", "uncertainty"),
    [
        ({"probability": [0.5, 0.5]}, ["no", "yes"], [0.5, 0.5], 1.0),
        ({"probability": [0.0, 1.0], "class_names": ["a", "b"]}, ["a", "b"], [0.0, 1.0], 0.0),
        ({"probability": [0.0, 1.0, 0.0]}, ["0", "1", "2"], [0.0, 1.0, 0.0], 0.0),
        ({"task": "multilabel", "probability": [0.5, 1.0]}, ["no", "yes"], [0.5, 1.0], 0.5),
        ({"task": "survival", "survival": [0.9], "bin_edges": [6.0]}, ["survival 6"], [0.9], None),
        ({"task": "survival", "survival": [0.9]}, ["survival 0"], [0.9], None),
        ({"task": "regression", "value": -3.5}, ["value"], [-3.5], None),
        ({"task": "regression", "value": [1.0, 2.0]}, ["value 0", "value 1"], [1.0, 2.0], None),
        ({"task": "cox", "risk": 0.25}, ["risk"], [0.25], None),
    ],
)  # fmt: skip
def test_output_scores_of_every_task(record, labels, scores, uncertainty):
    result = output_scores(record, ["no", "yes"])
    assert [entry["label"] for entry in result["prediction"]] == labels
    assert [entry["score"] for entry in result["prediction"]] == scores
    assert [entry["idx"] for entry in result["prediction"]] == list(range(len(scores)))
    assert result["uncertainty"] == uncertainty
