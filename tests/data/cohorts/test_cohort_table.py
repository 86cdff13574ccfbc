"""Tests of cohort tables: items, checks and reports of all errors."""

import json
import os

import h5py
import numpy as np
import pytest

from monai_mil_ext.data import CohortColumns, check_cohort, list_bags, load_cohort, write_bag
from monai_mil_ext.data.bags.bag_folder import FAR
from monai_mil_ext.transforms import LoadBagd, LoadPatientBagd
from tests.data.cohort_files import HEAD, texts, write_bags, write_table


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
        "row 5, 'none': `bag` must be the path or the name of a file below `root`, got none",
        "row 6: `bag` must be given, got an empty cell",
        "row 7, 'outside.h5': `bag` must lie below `root`, got a path or a link out of it: give --root /",
        "row 8, 'link.h5': `bag` must lie below `root`, got a path or a link out of it: give --root /",
        "row 9, 'cut': `path` must ",
        "row 10, 'wide': features must have 3 columns as in 6 bags, got 5",
        "row 11, 'same': `bag` must name one file, got 2 in 2 folders: give one of these folders as `root`",
        "row 13, 'same.h5': `bag` must have a unique name, got it in row 12 too",
        "row 14, 'again': `patient` must be given, got an empty cell",
        "row 14, 'again': `label` must be a class index, or a name if `classes` is given, got an empty cell",
        "row 15, 'a b': `case_id` must be letters",
        "row 15, 'a b': `label` must be a class index, or a name if `classes` is given, got 'tumor'",
    ]
    expected.append("row 16, 'empty': a bag must have an instance, got none")
    assert len(errors) == len(expected)
    for error, start in zip(errors, expected, strict=True):
        assert error.startswith(start)
    assert "'cut.h5'" in errors[5]
    cases = [
        "",
        "none",
        "row 6",
        "outside",
        "link",
        "cut",
        "wide",
        "same",
        "",
        "again",
        "again",
        "row 15",
        "row 15",
        "empty",
    ]
    assert [issue.case for issue in report.errors] == cases
    assert texts(report.notes) == [
        "unused columns: 'age'",
        "bag files that are not in the table: 'link.h5', 'stranger.h5'",
    ]
    with pytest.raises(ValueError, match=r"c.csv must be a valid cohort, got 14 errors:\n  row 4, 'twice.h5': "):
        report.raise_if_errors()
    assert str(report).startswith("c.csv: 15 rows, 3 valid items of 2 patients\n14 errors:\n  row 4")
    report.write(tmp_path / "report.json")
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["errors"][-1] == {
        "location": "row 16, 'empty'", "message": "a bag must have an instance, got none", "case": "empty",
    }  # fmt: skip
    assert (content["rows"], content["items"], len(content["errors"])) == (15, 3, 14)
    assert str(tmp_path) not in (tmp_path / "report.json").read_text()


def test_a_case_without_its_file_has_the_name_of_its_row(tmp_path):
    write_bags(tmp_path, {"a": 3})
    rows = [["case_id", *HEAD], ["one", "a", "p1", "0"], ["two", "Jane_Doe.h5", "p2", "1"], ["", "Doe.h5", "p3", "1"]]
    report = check_cohort(write_table(tmp_path / "c.csv", rows))
    assert [issue.case for issue in report.errors] == ["two", "Doe"]


def test_check_cohort_ignores_hidden_files(tmp_path):
    write_bags(tmp_path, {"a": 1, ".writing-xyz/a": 1})
    os.link(tmp_path / "a.h5", tmp_path / ".writing-abc.h5")
    report = check_cohort(write_table(tmp_path / "c.csv", [HEAD, ["a", "p", "0"]]))
    assert (len(report.items), report.notes, report.errors) == (1, [], [])


def test_check_cohort_reports_links_to_themselves_without_their_folder(tmp_path):
    write_bags(tmp_path, {"a": 1})
    for name in ("loop.h5", "other.zarr"):
        (tmp_path / name).symlink_to(name)
    (tmp_path / "gone.pt").symlink_to("nowhere")
    table = write_table(tmp_path / "c.csv", [HEAD, ["a", "p", "0"]])
    report = check_cohort(table)
    assert (len(report.items), report.errors) == (1, [])
    assert texts(report.notes) == ["bag files that are not in the table: 'gone.pt', 'loop.h5', 'other.zarr'"]
    report = check_cohort(write_table(table, [HEAD, *([name, "p", "0"] for name in ("loop.h5", "other", "gone"))]))
    assert [str(error).split(",")[0] for error in report.errors] == ["row 2", "row 3", "row 4"]
    assert str(tmp_path) not in str(report)


def test_check_cohort_refuses_remote_rows_by_name(tmp_path):
    write_bags(tmp_path, {"a": 1})
    rows = [[path, "p", "0"] for path in ("s3://bucket/a.h5", "ftp://b/a", "a.h5\0")]
    report = check_cohort(write_table(tmp_path / "c.csv", [HEAD, *rows]))
    assert report.items == []
    assert texts(report.errors) == [
        f"row 2, 'a.h5': `bag` {FAR}",
        "row 3, 'a': `bag` must be a local path, got an address that begins with 'ftp://'",
        "row 4, 'a.h5\\x00': `bag` must be a path, got one with a null character",
    ]
    for root, text in (("ftp://host", "a local path, got an address"), (tmp_path / "loop", "a folder that exists")):
        (tmp_path / "loop").unlink(missing_ok=True)
        (tmp_path / "loop").symlink_to("loop")
        with pytest.raises((ValueError, FileNotFoundError), match=f"`root` must be {text}"):
            check_cohort(tmp_path / "c.csv", root=root)


def test_check_cohort_names_a_bag_given_by_an_absolute_path_without_its_folder(tmp_path):
    write_bags(tmp_path, {"a": 1})
    rows = [[str(tmp_path / name), "p", "0"] for name in ("a.h5", "gone.h5")]
    report = check_cohort(write_table(tmp_path / "c.csv", [HEAD, *rows]))
    assert [item["case_id"] for item in report.items] == ["a"]
    assert [issue.location for issue in report.errors] == ["row 3, 'gone.h5'"]
    assert str(tmp_path) not in str(report)


@pytest.mark.parametrize("empty", [(0, 3), (0,)])
def test_load_cohort_skips_or_refuses_empty_bags(tmp_path, empty, caplog):
    write_bags(tmp_path, {"a": 2})
    with h5py.File(tmp_path / "e.h5", "w") as file:
        file["features"] = np.zeros(empty, np.float32)
        file["coords"] = np.zeros((0, 2), np.int64)
    table = write_table(tmp_path / "c.csv", [HEAD, ["a", "p", "0"], ["e", "q", "1"]])
    assert [item["case_id"] for item in load_cohort(table, on_bad="skip")] == ["a"]
    assert caplog.messages == ["c.csv: left out 1 of 2 cases:\n  row 3, 'e': a bag must have an instance, got none"]
    with pytest.raises(ValueError, match="got 1 error:\n  row 3, 'e': a bag must have an instance, got none"):
        load_cohort(table)
    with pytest.raises(ValueError, match=r"c.csv must have at least one usable bag, got 1 skipped:"):
        load_cohort(write_table(tmp_path / "c.csv", [HEAD, ["e", "q", "1"]]), on_bad="skip")


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


def test_load_cohort_keeps_the_instance_labels_of_each_bag_of_a_patient(tmp_path):
    write_bags(tmp_path, {"s1": 2, "s2": 2})
    np.save(tmp_path / "labels.npy", np.array([0, 1]))
    rows = [[*HEAD, "tiles"], ["s1", "p", "1", ""], ["s2", "p", "1", "labels.npy"]]
    columns = CohortColumns(instance_label="tiles")
    (item,) = load_cohort(write_table(tmp_path / "c.csv", rows), columns, level="patient")
    assert item["instance_label"] == [None, str(tmp_path.resolve() / "labels.npy")]


def test_load_cohort_refuses_invalid_options(tmp_path):
    with pytest.raises(ValueError, match="`level` must be one of 'bag', 'patient', got 'slide'"):
        load_cohort(tmp_path / "c.csv", level="slide")
    (tmp_path / "c.json").write_text("{}")
    with pytest.raises(ValueError, match=r"`path` must be JSON of the form .*, got 'c.json'"):
        load_cohort(tmp_path / "c.json", level="patient")
    with pytest.raises(FileNotFoundError, match="`root` must be a folder that exists, got 'none'"):
        load_cohort(write_table(tmp_path / "c.csv", [HEAD, ["a", "p", "0"]]), root=tmp_path / "none")


def test_check_cohort_names_labels_that_are_words_once_with_the_option_that_takes_them(tmp_path):
    names = ["LUSC", "LUAD", "normal"] * 4
    write_bags(tmp_path, {f"s{i}": 1 for i in range(len(names))})
    rows = [[f"s{i}", f"p{i}", name] for i, name in enumerate(names)]
    table = write_table(tmp_path / "c.csv", [HEAD, *rows])
    option = "--class_names \"['LUAD','LUSC','normal']\""
    words = [f"labels are LUAD, LUSC, normal: give {option} (in Python, `classes` of the columns)"]
    for columns in (CohortColumns(), CohortColumns(num_classes=2), CohortColumns(classes=["tumor", "other"])):
        report = check_cohort(table, columns)
        assert (texts(report.errors), texts(report.notes)) == (words, [])  # the column of labels is not called unused
        with pytest.raises(ValueError, match="got 1 error:\n  labels are LUAD, LUSC, normal"):
            load_cohort(table, columns, on_bad="skip")
    classes = eval(option.split('"')[1])  # noqa: S307
    assert {item["label"] for item in load_cohort(table, CohortColumns(classes=classes))} == {0, 1, 2}


def test_check_cohort_shows_no_folder(tmp_path):
    write_bags(tmp_path, {"DOE_JOHN/a": 2, "DOE_JOHN/b": 2, "ROE/b": 2, "DOE_JOHN/more": 2})
    rows = [[name, "p", "x"] for name in ("DOE_JOHN/a.h5", "DOE_JOHN/lost.h5", "b", "../DOE_JOHN/c.h5", "b.svs")]
    report = str(check_cohort(write_table(tmp_path / "c.csv", [HEAD, *rows, ["DOE_JOHN/more.h5", "q", "1"]])))
    assert "DOE_JOHN" not in report
    assert "ROE" not in report


def test_one_table_of_feature_files_serves_all(tmp_path):
    write_bags(tmp_path / "bags", {"a": 2, "b": 3})
    rows = [["case_id", "patient", "image", "label"], ["c1", "p", "bags/a.h5", "0"], ["c2", "p", "b", "0"]]
    expected = [("c1", "p", 2, 0), ("c2", "p", 3, 0)]
    scans = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    (tmp_path / "c.json").write_text(json.dumps({"scans": [{**scan, "label": 0} for scan in scans]}))
    for path in (
        write_table(tmp_path / "c.csv", rows),
        write_table(tmp_path / "c.tsv", rows, "\t"),
        tmp_path / "c.json",
    ):
        items = load_cohort(path, CohortColumns())
        assert [(i["case_id"], i["patient"], i["num_instances"], i["label"]) for i in items] == expected
        (patient,) = load_cohort(path, CohortColumns(), level="patient")
        assert (patient["case_id"], len(patient["image"])) == ("p", 2)
        assert [(i["case_id"], i["image"]) for i in list_bags(path)] == [(i["case_id"], i["image"]) for i in items]


def test_feature_files_need_no_columns(tmp_path):
    write_bags(tmp_path, {"a": 2})
    table = write_table(tmp_path / "c.csv", [["case_id", "patient", "image", "label"], ["c1", "p", "a.h5", "0"]])
    assert load_cohort(table)[0]["label"] == 0
    (tmp_path / "c.json").write_text('[{"case_id": "c1", "patient": "p", "image": "a.h5", "label": 0}]')
    assert load_cohort(tmp_path / "c.json") == load_cohort(table)


def test_a_case_that_is_left_out_is_named_by_its_column_and_never_by_its_file(tmp_path):
    write_bags(tmp_path, {"DOE_JOHN": 3})
    (tmp_path / "ROE_JANE.h5").write_bytes(b"no")
    rows = [
        ["case_id", "patient", "image", "label"],
        ["c1", "p1", "DOE_JOHN.h5", "0"],
        ["c2", "p2", "ROE_JANE.h5", "1"],
        ["c3", "p3", "POE_JIM.h5", "1"],
    ]
    columns = CohortColumns(case="case_id", bag="image")
    report = check_cohort(write_table(tmp_path / "c.csv", rows), columns)
    assert [issue.case for issue in report.errors] == ["c2", "c3"]
    assert [issue.location for issue in report.errors] == ["row 3, 'c2'", "row 4, 'c3'"]
    report.usable_items("skip", tmp_path / "out")
    text = (tmp_path / "out/left_out.csv").read_text()
    assert "a known format" in text
    assert "ROE" not in text + str(report)
    assert "POE" not in text + str(report)
