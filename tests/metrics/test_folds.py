"""Tests of the summary of folds from files of evaluations."""

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


def test_summarize_folds_takes_values_within_folds(tmp_path):
    for number, answers in ((0, GOOD), (10, POOR), (2, GOOD)):
        write(tmp_path, number, [0, 1], answers)
    summary = summarize_folds(tmp_path)
    assert json.loads((tmp_path / "folds.json").read_text())["values"] == summary["values"]
    assert list(summary["folds"]) == [0, 2, 10]
    assert (summary["num_folds"], summary["num_bags"], summary["use"]) == (3, 6, "research use only")
    assert summary["values"]["bag_auroc"] == pytest.approx(2 / 3)
    assert summary["sd"]["bag_auroc"] == pytest.approx(np.std([1, 0, 1], ddof=1))
    assert summary["sd"]["brier_score"] == pytest.approx(np.std([0.065, 0.585, 0.065], ddof=1))
    assert summary["values"]["calibration_error"] == pytest.approx((0.25 + 0.75 + 0.25) / 3)


def test_fold_summary_of_one_fold_has_no_deviation():
    assert np.isnan(fold_summary({0: ([0, 1], GOOD)})["sd"]["bag_auroc"])


def test_summarize_folds_names_invalid_folders(tmp_path):
    with pytest.raises(ValueError, match=r"`folder` must hold fold_<k>/bags\.csv of an evaluation, got none"):
        summarize_folds(tmp_path)
    (tmp_path / "fold_0").mkdir()
    (tmp_path / "fold_0" / "bags.csv").write_text("case_id\na\n")
    with pytest.raises(ValueError, match=r"`folder` must hold bags\.csv with labels and probabilities, got 'fold_0'"):
        summarize_folds(tmp_path)
