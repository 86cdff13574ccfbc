"""Cohort tables: items, checks and reports of all errors."""

import json
import os

import h5py
import numpy as np
import pytest
import torch

from monai_mil_ext.data import CohortChecks, CohortColumns, check_cohort, load_cohort, write_bag
from monai_mil_ext.transforms import LoadBagd, LoadPatientBagd
from tests.data.cohort_files import write_bags, write_table

HEAD = ["bag", "patient", "label"]


def texts(findings):
    return [str(finding) for finding in findings]


def test_load_cohort_items_serve_load_bagd(tmp_path):
    write_bags(tmp_path / "bags", {"s1": 4, "s.2": 2})
    table = write_table(tmp_path / "c.csv", [HEAD, ["bags/s1.h5", "p1", "0"], ["s.2.svs", "p1", "1"]])
    items = load_cohort(table)
    assert items[0] == {
        "case_id": "s1",
        "patient": "p1",
        "image": str((tmp_path / "bags" / "s1.h5").resolve()),
        "num_instances": 4,
        "label": 0,
    }
    assert items[1]["case_id"] == "s.2"
    assert LoadBagd("image")(items[1])["image"].tolist() == [[1000, 1001, 1002], [1003, 1004, 1005]]


def test_check_cohort_lists_all_errors(tmp_path):
    root = tmp_path / "root"
    write_bags(root, {"good": 3, "twice": 2, "again": 2, "a b": 1, "stranger": 1, "x/same": 2, "y/same": 2})
    write_bags(root, {"wide": 2}, width=5)
    write_bags(tmp_path, {"outside": 1})
    (root / "link.h5").symlink_to(tmp_path / "outside.h5")
    (root / "cut.h5").write_bytes((root / "good.h5").read_bytes()[:900])
    write_bag(root / "empty.h5", {"features": np.zeros((0, 3), np.float32)})
    rows = [
        [*HEAD, "age"],
        ["good", "p1", "0", "50"],
        ["twice", "p1", "1", ""],
        ["twice.h5", "p2", "1", ""],
        ["none", "p2", "1", ""],
        ["", "p2", "1", ""],
        ["../outside.h5", "p2", "1", ""],
        ["link.h5", "p2", "1", ""],
        ["cut", "p3", "1", ""],
        ["wide", "p3", "1", ""],
        ["same", "p3", "1", ""],
        ["x/same.h5", "p3", "1", ""],
        ["y/same.h5", "p3", "1", ""],
        ["again", "", "", ""],
        ["a b", "p3", "tumor", ""],
        ["empty", "p4", "0", ""],
    ]
    report = check_cohort(write_table(tmp_path / "c.csv", rows), root=root)
    assert [item["case_id"] for item in report.items] == ["good", "twice", "same"]
    errors = texts(report.errors)
    expected = [
        "row 4, 'twice.h5': `bag` must be in one row only, got it in row 3 too",
        "row 5, 'none': `bag` must be the path or the name of a bag file in the folder, got none",
        "row 6: `bag` must be given, got an empty cell",
        "row 7, '../outside.h5': `bag` must lie in the folder of the bags, got a path out of it",
        "row 8, 'link.h5': `bag` must lie in the folder of the bags, got a path out of it",
        "row 9, 'cut': `path` must ",
        "row 10, 'wide': features must have 3 columns as in 6 bags, got 5",
        "row 11, 'same': `bag` must name one file, got 'x/same.h5', 'y/same.h5'",
        "row 13, 'y/same.h5': `bag` must have a unique name, got it in row 12 too",
        "row 14, 'again': `patient` must be given, got an empty cell",
        "row 14, 'again': `label` must be a class index, or a name if `classes` is given, got an empty cell",
        "row 15, 'a b': `case_id` must be letters",
        "row 15, 'a b': `label` must be a class index, or a name if `classes` is given, got 'tumor'",
    ]
    assert len(errors) == len(expected)
    for error, start in zip(errors, expected, strict=True):
        assert error.startswith(start)
    assert "'cut.h5'" in errors[5]
    assert texts(report.skipped) == ["row 16, 'empty': a bag must have an instance, got none"]
    assert texts(report.notes) == [
        "unused columns: 'age'",
        "bag files that are not in the table: 'link.h5', 'stranger.h5'",
    ]
    with pytest.raises(ValueError, match=r"c.csv must be a valid cohort, got 13 errors:\n  row 4, 'twice.h5': "):
        report.raise_if_errors()
    assert str(report).startswith("c.csv: 15 rows, 3 valid items of 2 patients\n13 errors:\n  row 4")
    report.write(tmp_path / "report.json")
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["skipped"] == [{"location": "row 16, 'empty'", "message": "a bag must have an instance, got none"}]
    assert (content["rows"], content["items"], len(content["errors"])) == (15, 3, 13)
    assert str(tmp_path) not in (tmp_path / "report.json").read_text()


def test_check_cohort_ignores_hidden_files(tmp_path):
    write_bags(tmp_path, {"a": 1, ".writing-xyz/a": 1})
    os.link(tmp_path / "a.h5", tmp_path / ".writing-abc.h5")
    report = check_cohort(write_table(tmp_path / "c.csv", [HEAD, ["a", "p", "0"]]))
    assert (len(report.items), report.notes, report.errors) == (1, [], [])


@pytest.mark.parametrize("empty", [(0, 3), (0,)])
def test_load_cohort_skips_or_refuses_empty_bags(tmp_path, empty):
    write_bags(tmp_path, {"a": 2})
    with h5py.File(tmp_path / "e.h5", "w") as file:
        file["features"] = np.zeros(empty, np.float32)
        file["coords"] = np.zeros((0, 2), np.int64)
    table = write_table(tmp_path / "c.csv", [HEAD, ["a", "p", "0"], ["e", "q", "1"]])
    with pytest.warns(UserWarning, match="c.csv: 1 skipped:\n  row 3, 'e': a bag must have an instance, got none"):
        assert [item["case_id"] for item in load_cohort(table)] == ["a"]
    with pytest.raises(ValueError, match="got 1 error:\n  row 3, 'e': a bag must have an instance, got none"):
        load_cohort(table, checks=CohortChecks(on_empty="error"))
    with pytest.raises(ValueError, match=r"c.csv must have at least one usable bag, got 1 skipped:"):
        load_cohort(write_table(tmp_path / "c.csv", [HEAD, ["e", "q", "1"]]))


def test_cohort_checks_of_features_and_coordinates(tmp_path):
    write_bags(tmp_path, {"good": 3})
    write_bag(tmp_path / "nan.h5", {"features": np.array([[1, np.nan, np.inf]], np.float16)})
    coords = np.array([[0, 0], [0, 1], [0, 0], [0, 0]])
    write_bag(tmp_path / "doubled.h5", {"features": np.ones((4, 3), np.float32), "coords": coords})
    table = write_table(tmp_path / "c.csv", [HEAD, *([name, "p", "0"] for name in ("good", "nan", "doubled"))])
    assert len(load_cohort(table)) == 3
    errors = texts(check_cohort(table, checks=CohortChecks(features=True, coords=True)).errors)
    assert errors == [
        "row 3, 'nan': features must be finite, got 2 NaN or infinite values",
        "row 4, 'doubled': instances must have distinct coordinates, got 2 duplicates",
    ]
    skip = CohortChecks(features=True, coords=True, on_damaged="skip")
    with pytest.warns(UserWarning, match="2 skipped"):
        assert [item["case_id"] for item in load_cohort(table, checks=skip)] == ["good"]


def test_cohort_checks_in_features(tmp_path):
    write_bags(tmp_path, {"a": 2, "b": 2})
    table = write_table(tmp_path / "c.csv", [HEAD, ["a", "p", "0"], ["b", "p", "0"]])
    report = check_cohort(table, checks=CohortChecks(in_features=4))
    assert texts(report.errors)[0] == "row 2, 'a': features must have 4 columns, got 3"
    assert len(report.errors) == 2
    with pytest.raises(ValueError, match="`on_empty` must be one of 'skip', 'error', got 'drop'"):
        CohortChecks(on_empty="drop")


def test_load_cohort_merges_bags_of_a_patient(tmp_path):
    write_bags(tmp_path, {"s1": 2, "s2": 3, "s3": 1, "s4": 1})
    rows = [HEAD, ["s1", "p", "1"], ["s3", "q", "0"], ["s2", "p", "1"]]
    items = load_cohort(write_table(tmp_path / "c.csv", rows), level="patient")
    assert [(i["case_id"], i["patient"], i["num_instances"], i["label"]) for i in items] == [
        ("p", "p", 5, 1),
        ("q", "q", 1, 0),
    ]
    bag = LoadPatientBagd(["image", "coords"])(items[0])
    assert bag["slide_index"].tolist() == [0, 0, 1, 1, 1]
    assert bag["image"][:, 0].tolist() == [0, 3, 1000, 1003, 1006]
    assert bag["coords"][:, 0].tolist() == [0, 2, 0, 2, 4]
    rows += [["s4", "q", "1"]]
    report = check_cohort(write_table(tmp_path / "c.csv", rows), level="patient")
    assert texts(report.errors) == ["patient 'q': `label` must be the same for all bags, got 0 for 's3', 1 for 's4'"]
    assert [item["case_id"] for item in report.items] == ["p"]


def test_cohort_columns_without_patient(tmp_path):
    write_bags(tmp_path, {"s1": 2})
    columns = CohortColumns(bag="slide", patient=None, label=None)
    items = load_cohort(write_table(tmp_path / "c.csv", [["slide"], ["s1"]]), columns)
    assert (items[0]["patient"], "label" in items[0]) == ("s1", False)


def test_cohort_columns_missing_in_the_table(tmp_path):
    write_bags(tmp_path, {"s1": 2})
    table = write_table(tmp_path / "c.csv", [["Bag", "patient", "y"], ["s1", "p", "0"]])
    with pytest.raises(ValueError, match="row 1: column 'bag' must exist, got 'Bag', 'patient', 'y'") as error:
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
    one, two = load_cohort(table, columns)
    torch.testing.assert_close(one["label"], torch.tensor([1.0, torch.nan]), equal_nan=True)
    assert (one["time"], one["event"], one["site"]) == (3.5, 1, "north")
    assert one["instance_label"] == str(tmp_path.resolve() / "s1_labels.npy")
    assert two["label"].tolist() == [0, 1]
    assert "instance_label" not in two
    assert [i["label"] for i in load_cohort(table, CohortColumns(label="grade", classes=["low", "high"]))] == [1, 0]
    assert [i["label"] for i in load_cohort(table, CohortColumns(label="size", numeric=True))] == [-20.0, 3.0]


@pytest.mark.parametrize(
    ("columns", "cells", "match"),
    [
        (CohortColumns(classes=["a", "b"]), ["c", ""], "`label` must be one of 'a', 'b', got 'c'"),
        (CohortColumns(), ["1.5", ""], "`label` must be a class index, .* got '1.5'"),
        (CohortColumns(), ["-1", ""], "`label` must be a class index, .* got '-1'"),
        (CohortColumns(numeric=True), ["inf", ""], "`label` must be a finite number, got 'inf'"),
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


def test_cohort_columns_refuse_conflicting_options(tmp_path):
    with pytest.raises(ValueError, match="`time` and `event` must both be given, or neither, got 't', None"):
        CohortColumns(time="t")
    with pytest.raises(ValueError, match=r"`classes` must be None if labels are numeric, got \['a'\]"):
        CohortColumns(numeric=True, classes=["a"])
    with pytest.raises(ValueError, match="`level` must be one of 'bag', 'patient', got 'slide'"):
        load_cohort(tmp_path / "c.csv", level="slide")
    with pytest.raises(ValueError, match=r"must be .csv, .tsv or .xlsx if options of tables are given, got 'c.json'"):
        load_cohort(tmp_path / "c.json", level="patient")
    with pytest.raises(FileNotFoundError, match="`root` must be a folder that exists, got 'none'"):
        load_cohort(write_table(tmp_path / "c.csv", [HEAD, ["a", "p", "0"]]), root=tmp_path / "none")
