"""Tests of the results of a study."""

import numpy as np
import pytest

from monai_mil_ext.apps.study.results import (
    _weights_note,
    operating_threshold,
    read_history,
)
from monai_mil_ext.apps.study.runs import Run
from tests.apps.study.cohort_bags import TASKS, predictions_of

TASK = TASKS["classification"]


def test_the_threshold_separates_the_classes():
    truth = np.array([0, 0, 0, 1, 1, 1])
    assert operating_threshold(predictions_of(np.array([0.1, 0.2, 0.1, 0.3, 0.4, 0.3]), truth), TASK) == pytest.approx(
        0.25
    )
    assert operating_threshold(predictions_of(np.full(6, 0.5), truth), TASK) is None
    assert operating_threshold(predictions_of(np.full(6, 0.5), truth), TASKS["cox"]) is None


def test_the_note_on_weights_names_its_folds():
    runs = [
        (Run(f"ABMIL/fold_{fold}", {}), {"weights_note": note})
        for fold, note in enumerate(["", "The loss weights b 2."])
    ]
    (note,) = _weights_note(runs)
    assert note.startswith("In 1 of 2 folds: the loss weights b 2 (of fold 1).")
    assert "too high for rare classes" in note
    assert _weights_note(runs[:1]) == []


def test_a_missing_history_is_empty(tmp_path):
    assert read_history(tmp_path / "history.csv") == []
    (tmp_path / "history.csv").write_text("epoch,val_loss\n1,0.5\n2,\n")
    assert read_history(tmp_path / "history.csv")[0] == {"epoch": 1.0, "val_loss": 0.5}
