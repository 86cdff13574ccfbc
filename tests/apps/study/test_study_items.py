"""Tests of the items of a study from what configs give."""

import csv

import pytest

from monai_mil_ext.apps.study import as_names, label_items
from monai_mil_ext.data import CohortColumns

COLUMNS = CohortColumns(bag="image", label="grade", classes=["low", "high"], site="center", covariates=["age"])
SCANS = [
    {"case_id": "a", "patient": "p", "image": "a.h5", "grade": "high", "center": "A", "age": "61"},
    {"case_id": "b", "patient": "q", "image": "b.h5", "center": "B"},
]


def test_names_of_a_command_line():
    assert [as_names(names) for names in ("age, sex", ("age",), None, "")] == [["age", "sex"], ["age"], [], []]


def test_scans_get_label_site_and_covariates():
    (item,) = label_items(SCANS[:1], COLUMNS)
    assert (item["label"], item["site"], item["covariates"]) == (1, "A", {"age": "61"})


def test_scans_without_a_label_are_refused_or_left_out(tmp_path):
    with pytest.raises(ValueError, match="case 'b'"):
        label_items(SCANS, COLUMNS)
    assert [item["case_id"] for item in label_items(SCANS, COLUMNS, "skip", str(tmp_path))] == ["a"]
    with (tmp_path / "left_out.csv").open(newline="") as file:
        assert [row["case"] for row in csv.DictReader(file)] == ["b"]
