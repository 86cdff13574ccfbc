"""Tests of the table of predictions."""

import numpy as np
import pytest

from monai_mil_ext.apps.study import Predictions


@pytest.fixture
def predictions() -> Predictions:
    return Predictions(
        ["007", "b"],
        ["p", "NA"],
        ["", "s"],
        np.array([0, 0]),
        np.array([0, 1]),
        ["test", "val"],
        np.array([[1.5, 1], [2, 0]]),
        np.array([[0.1], [1 / 3]]),
        np.array([[0.9, 0.5], [0.8, 0.2]]),
        np.array([1.5, np.inf]),
        {"entropy": np.array([np.nan, 1.0])},
    )


def test_read_returns_what_was_written(predictions: Predictions, tmp_path) -> None:
    predictions.write(tmp_path / "p.csv")
    read = Predictions.read(tmp_path / "p.csv")
    for name, value in vars(predictions).items():
        if name == "more":
            np.testing.assert_array_equal(read.more["entropy"], value["entropy"])
        else:
            np.testing.assert_array_equal(getattr(read, name), value)
            assert type(getattr(read, name)) is type(value)


def test_select_and_concatenate(predictions: Predictions) -> None:
    assert predictions.of_part("val").case_id == ["b"]
    joined = Predictions.concatenate([predictions.of_part("val"), predictions.select(np.array([0]))])
    assert joined.patient == ["NA", "p"]
    assert joined.survival.tolist() == [[0.8, 0.2], [0.9, 0.5]]
    assert len(joined) == 2
