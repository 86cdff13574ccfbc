"""Tests of the results of a study."""

import numpy as np
import pytest

from monai_mil_ext.apps.study import Predictions
from monai_mil_ext.apps.study.results import (
    CohortResults,
    _weights_note,
    compared_predictions,
    operating_threshold,
    read_history,
)
from monai_mil_ext.apps.study.runs import Run
from tests.apps.study.cohort_bags import TASKS

TASK = TASKS["classification"]


def rows(score, truth):
    names, zeros = [str(i) for i in range(len(truth))], np.zeros(len(truth), dtype=int)
    output = np.column_stack([1 - score, score])
    return Predictions(names, names, [""] * len(truth), zeros, zeros, ["test"] * len(truth), truth, output)


def test_the_threshold_separates_the_classes():
    truth = np.array([0, 0, 0, 1, 1, 1])
    assert operating_threshold(rows(np.array([0.1, 0.2, 0.1, 0.3, 0.4, 0.3]), truth), TASK) == pytest.approx(0.25)
    assert operating_threshold(rows(np.full(6, 0.5), truth), TASK) is None
    assert operating_threshold(rows(np.full(6, 0.5), truth), TASKS["cox"]) is None


def test_comparisons_ask_what_bags_and_clinical_variables_add():
    items, truth = [{"case_id": str(i)} for i in range(6)], np.array([0, 0, 0, 1, 1, 1])
    bags = {name: rows(np.linspace(0, 1, 6), truth) for name in ("A", "B")}
    assert compared_predictions(CohortResults(TASK, items, bags))[1] == [("A", "B")]
    clinical = {name: {"clinical": bags[name], "both": bags[name]} for name in bags}
    compared, pairs = compared_predictions(CohortResults(TASK, items, bags, clinical))
    assert list(compared) == ["A", "B", "clinical alone", "A + clinical", "B + clinical"]
    assert pairs == [
        ("A", "B"),
        *((f"{name} + clinical", other) for name in ("A", "B") for other in ("clinical alone", name)),
    ]


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
