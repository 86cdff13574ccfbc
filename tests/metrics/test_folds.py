"""The table over folds, from what evaluations left."""

import csv
import json

import numpy as np
import pytest

from monai_mil_ext.metrics import fold_summary, summarize_folds

GOOD, POOR = np.array([[0.8, 0.2], [0.3, 0.7]]), np.array([[0.4, 0.6], [0.9, 0.1]])


def write(folder, number, labels, probability):
    path = folder / f"fold_{number}" / "bags.csv"
    path.parent.mkdir(parents=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case_id", "label", "probability_0", "probability_1"])
        writer.writerows([f"c{i}", label, *p] for i, (label, p) in enumerate(zip(labels, probability, strict=True)))


def test_values_are_taken_within_a_fold_and_spread_over_folds(tmp_path):
    for number, answers in ((0, GOOD), (10, POOR), (2, GOOD)):
        write(tmp_path, number, [0, 1], answers)
    found = summarize_folds(tmp_path)
    assert json.loads((tmp_path / "folds.json").read_text())["values"] == found["values"]
    assert list(found["folds"]) == [0, 2, 10]
    assert (found["num_folds"], found["num_bags"], found["use"]) == (3, 6, "research use only")
    assert found["values"]["bag_auroc"] == pytest.approx(2 / 3)
    assert found["sd"]["bag_auroc"] == pytest.approx(np.std([1, 0, 1], ddof=1))
    assert found["sd"]["brier_score"] == pytest.approx(np.std([0.065, 0.585, 0.065], ddof=1))
    assert found["values"]["calibration_error"] == pytest.approx((0.25 + 0.75 + 0.25) / 3)


def test_one_fold_has_no_spread():
    assert np.isnan(fold_summary({0: ([0, 1], GOOD)})["sd"]["bag_auroc"])


def test_what_is_no_evaluation_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"`folder` must hold fold_<k>/bags\.csv of an evaluation, got none"):
        summarize_folds(tmp_path)
    (tmp_path / "fold_0").mkdir()
    (tmp_path / "fold_0" / "bags.csv").write_text("case_id\na\n")
    with pytest.raises(ValueError, match=r"`folder` must hold bags\.csv with labels and probabilities, got 'fold_0'"):
        summarize_folds(tmp_path)
