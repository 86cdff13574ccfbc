"""Tests of the meaning of the columns of a cohort table."""

import numpy as np
import pytest
import torch

from monai_mil_ext.data import CohortColumns, load_cohort
from tests.data.cohort_files import write_bags, write_table


def test_cohort_columns_names_are_those_in_use():
    columns = CohortColumns(label=["a", "b"], time="months", event="dead", instance_label="tiles", keep=["site", "a"])
    assert columns.names == ["bag", "patient", "months", "dead", "tiles", "a", "b", "site"]


def test_cohort_columns_missing_suggests_a_close_name():
    assert CohortColumns(patient=None).missing(["bag", "lable"]) == [
        "column 'label' must exist, got 'bag', 'lable'; did you mean 'lable'?"
    ]


def test_cohort_columns_values_of_one_row():
    columns = CohortColumns(label="size", numeric=True, keep=["site"])
    assert columns.values({"size": "-2e1", "site": "north"}) == ({"label": -20.0, "site": "north"}, [])
    values, errors = columns.values({"size": "", "site": "north"})
    assert (values, errors) == ({"site": "north"}, ["`label` must be a finite number, got an empty cell"])


def test_cohort_columns_without_patient(tmp_path):
    write_bags(tmp_path, {"s1": 2})
    columns = CohortColumns(bag="slide", patient=None, label=None)
    items = load_cohort(write_table(tmp_path / "c.csv", [["slide"], ["s1"]]), columns)
    assert (items[0]["patient"], "label" in items[0]) == ("s1", False)


def test_cohort_columns_missing_in_the_table(tmp_path):
    write_bags(tmp_path, {"s1": 2})
    table = write_table(tmp_path / "c.csv", [["tile", "patient", "y"], ["s1", "p", "0"]])
    message = r"row 1: column 'image' \(the file of a case\) must exist, got 'tile', 'patient', 'y'"
    with pytest.raises(ValueError, match=message) as error:
        load_cohort(table)
    assert "column 'label' must exist" in str(error.value)


def test_cohort_columns_labels_of_all_kinds(tmp_path):
    write_bags(tmp_path, {"s1": 2, "s2": 2})
    np.save(tmp_path / "s1_labels.npy", np.array([0, 1]))
    rows = [
        ["bag", "patient", "a", "b", "grade", "months", "dead", "size", "tiles", "site"],
        ["s1", "p", "1", "", "high", "3.5", "1", "-2e1", "s1_labels.npy", "north"],
        ["s2", "q", "0", "1", "low", "7", "0", "3", "", "south"],
    ]
    table = write_table(tmp_path / "c.tsv", rows, "\t")
    columns = CohortColumns(label=["a", "b"], time="months", event="dead", instance_label="tiles", keep=["site"])
    first, second = load_cohort(table, columns)
    torch.testing.assert_close(first["label"], torch.tensor([1.0, torch.nan]), equal_nan=True)
    assert (first["time"], first["event"], first["site"]) == (3.5, 1, "north")
    assert first["instance_label"] == str(tmp_path.resolve() / "s1_labels.npy")
    assert second["label"].tolist() == [0, 1]
    assert "instance_label" not in second
    assert [i["label"] for i in load_cohort(table, CohortColumns(label="grade", classes=["low", "high"]))] == [1, 0]
    assert [i["label"] for i in load_cohort(table, CohortColumns(label="size", numeric=True))] == [-20.0, 3.0]


@pytest.mark.parametrize(
    ("columns", "cells", "match"),
    [
        (CohortColumns(classes=["a", "b"]), ["c", ""], "`label` must be one of 'a', 'b', got 'c'"),
        (CohortColumns(), ["1.5", ""], "`label` must be a class index, .* got '1.5'"),
        (CohortColumns(), ["-1", ""], "`label` must be a class index, .* got '-1'"),
        (CohortColumns(numeric=True), ["inf", ""], "`label` must be a finite number, got 'inf'"),
        (CohortColumns(num_classes=2), ["2", ""], "`label` must be a class index from 0 to 1, got '2'"),
        (CohortColumns(label=["label", "other"]), ["2", "1"], "`label` must be 0 or 1, got '2'"),
        (
            CohortColumns(label=["label", "other"]),
            ["NA", ""],
            "`label` must be 0 or 1 in at least one column, got no known label",
        ),
        (CohortColumns(label=None, time="label", event="other"), ["-3", "1"], "`time` must be a time of at least 0"),
        (CohortColumns(label=None, time="label", event="other"), ["3", "yes"], "`event` must be 0 or 1, got 'yes'"),
        (CohortColumns(label=None, instance_label="other"), ["", "none.npy"], "`instance_label` must be the path or"),
    ],
)
def test_cohort_columns_refuse_invalid_labels(tmp_path, columns, cells, match):
    write_bags(tmp_path, {"s1": 2})
    table = write_table(tmp_path / "c.csv", [["bag", "patient", "label", "other"], ["s1", "p", *cells]])
    with pytest.raises(ValueError, match=f"got 1 error:\n  row 2, 's1': {match}"):
        load_cohort(table, columns)


def test_cohort_columns_refuse_conflicting_options():
    with pytest.raises(ValueError, match="`time` and `event` must both be given, or neither, got 't', None"):
        CohortColumns(time="t")
    with pytest.raises(ValueError, match=r"`classes` must be None if labels are numeric, got \['a'\]"):
        CohortColumns(numeric=True, classes=["a"])
