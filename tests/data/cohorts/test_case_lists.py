"""Tests of the lists of scans and slides without labels."""

import json
import os

import pytest

from monai_mil_ext.data import CohortColumns, ScanChecks, check_cohort, list_scans, load_cohort, single_case
from monai_mil_ext.data.bags.bag_folder import FAR
from monai_mil_ext.data.cohorts.case_lists import check_scan_list


def write(tmp_path, *lines):
    (tmp_path / "scans.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "scans.csv"


def test_list_scans_resolves_paths(tmp_path):
    table = write(tmp_path, "case_id,image,series,stack,doctor", "a,one,,,x", "b,two.nii.gz,5,echo 2,y")
    assert list_scans(table) == [
        {"case_id": "a", "image": str(tmp_path / "one")},
        {"case_id": "b", "image": str(tmp_path / "two.nii.gz"), "series": "5", "stack": "echo 2"},
    ]
    assert list_scans(table, tmp_path / "archive")[0]["image"] == str(tmp_path / "archive" / "one")
    scans = {"scans": [{"case_id": "a", "image": "one", "patient": "p"}]}
    (tmp_path / "scans.json").write_text(json.dumps(scans))
    assert list_scans(tmp_path / "scans.json") == [{"case_id": "a", "patient": "p", "image": str(tmp_path / "one")}]


def test_list_scans_keeps_requested_columns(tmp_path):
    table = write(tmp_path, "case_id,image,label,mpp", "a,one,2,", "b,two,,0.5")
    assert [set(item) for item in list_scans(table)] == [{"case_id", "image"}] * 2
    first, second = list_scans(table, keep=["label", "mpp", "age"])
    assert (first["label"], set(first)) == ("2", {"case_id", "image", "label"})
    assert (second["mpp"], set(second)) == ("0.5", {"case_id", "image", "mpp"})
    (tmp_path / "scans.json").write_text(json.dumps({"scans": [{"case_id": "a", "image": "one", "mpp": 0.5}]}))
    assert list_scans(tmp_path / "scans.json", keep=["mpp"])[0]["mpp"] == "0.5"


def test_list_scans_lists_all_errors_of_case_ids(tmp_path):
    table = write(tmp_path, "case_id,image", "a,one", "a,two", "../b,three")
    with pytest.raises(ValueError, match="2 errors") as error:
        list_scans(table)
    for text in (
        "`case_id` must be unique, got 'a' 2 times: row 2, row 3",
        "row 4: `case_id` must be letters, digits",
    ):
        assert text in str(error.value)


OUTSIDE = "`image` must lie below `root`, got a path or a link out of it: give --root / to allow paths to anywhere"


def test_list_scans_marks_a_row_that_cannot_be_used_and_keeps_the_others(tmp_path):
    table_dir = tmp_path / "tables"
    table_dir.mkdir()
    (tmp_path / "far.nii").touch()
    (table_dir / "link.nii").symlink_to(tmp_path / "far.nii")
    rows = ["a,one", "b,../far.nii", f"c,{tmp_path / 'far.nii'}", "d,", "e,s3://bucket/x.nii", "f,link.nii"]
    table = write(table_dir, "case_id,image", *rows)
    items = {item["case_id"]: item for item in list_scans(table)}
    assert items["a"] == {"case_id": "a", "image": str(table_dir / "one")}
    assert {case: item["input_error"] for case, item in items.items() if case != "a"} == {
        "b": OUTSIDE,
        "c": OUTSIDE,
        "d": "`image` must be given, got an empty cell",
        "e": f"`image` {FAR}",
        "f": OUTSIDE,
    }
    assert {items[case]["image"] for case in "bcdef"} == {""}
    everywhere = {item["case_id"]: item["image"] for item in list_scans(table, "/")}
    far = str(tmp_path / "far.nii")
    assert [everywhere[case] for case in "bcf"] == [far, far, far]  # paths are relative to the table as well
    assert everywhere["a"] == "/one"


def test_list_scans_refuses_other_files(tmp_path):
    with pytest.raises(ValueError, match=r"must have the columns 'case_id' and 'image', got \['name', 'image'\]"):
        list_scans(write(tmp_path, "name,image", "a,b"))
    (tmp_path / "scans.json").write_text("{}")
    with pytest.raises(ValueError, match="or JSON of the form"):
        list_scans(tmp_path / "scans.json")
    with pytest.raises(FileNotFoundError, match=r"must be a cohort file that exists, got 'no\.json'"):
        list_scans(tmp_path / "no.json")


def test_scans_have_the_columns_of_all_tables(tmp_path):
    (tmp_path / "one").touch()
    table = write(tmp_path, "Case ID,Subject,Image,Label,Series,Site,split", "a,p,one,1,2,north,Train")
    report = check_scan_list(table)
    expected = {"case_id": "a", "patient": "p", "image": str(tmp_path / "one"), "label": "1", "series": "2"}
    assert report.errors == []
    (item,) = report.items
    assert {**expected, "site": "north", "split": "train"}.items() <= item.items()
    assert [str(note) for note in report.notes] == ["row 1: column 'Subject' is taken for the patient", *NOTE_ON_SITE]
    assert expected.items() >= list_scans(table)[0].items()


NOTE_ON_SITE = ["row 1: column 'Site' is taken for the site"]


def test_scans_without_patients_are_of_different_ones(tmp_path):
    (tmp_path / "one").touch()
    (item,) = load_cohort(write(tmp_path, "case_id,image", "a,one"))
    assert item["patient"] == "a"
    report = check_scan_list(write(tmp_path, "case_id,patinet,image", "a,p,one"))
    assert "column 'patient' must exist, got 'case_id', 'patinet', 'image'" in str(report)
    assert report.items == []
    twice = check_scan_list(write(tmp_path, "case_id,image", "a,one", "a,one"))
    assert "give --columns#patient case_id if these are patients" in str(twice.errors[0])


def test_labels_of_scans_are_read_by_columns(tmp_path):
    (tmp_path / "one").touch()
    scan = {"case_id": "a", "image": "one", "grade": "high", "age": 50, "reference": None}
    for path in (write_scans(tmp_path, scan), write(tmp_path, "case_id,image,grade,age", "a,one,high,50")):
        columns = CohortColumns(label="grade", classes=["low", "high"], covariates=["age"])
        (item,) = load_cohort(path, columns, ScanChecks(headers=False))
        assert (item["label"], item["covariates"]) == (1, {"age": "50"})
        words = check_scan_list(path, columns=CohortColumns(label="grade", classes=["a", "b"]))
        assert words.items == []
        assert "`label` must be one of 'a', 'b', got 'high'" in str(words)
    assert "column 'label' must exist" in str(check_scan_list(path, columns=CohortColumns()))


def write_scans(tmp_path, *scans, **options):
    (tmp_path / "scans.json").write_text(json.dumps({"scans": scans}), **options)
    return tmp_path / "scans.json"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_scans_in_json_may_have_a_byte_order_mark(tmp_path, encoding):
    (tmp_path / "one").touch()
    scan = {"case_id": "a", "patient": "p", "image": "one"}
    path = write_scans(tmp_path, scan, encoding=encoding)
    assert list_scans(path) == load_cohort(path) == [{**scan, "image": str(tmp_path / "one")}]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"scans": []}', '{"scans": ["a"]}', '{"scans": {"a": 1}}', "[]", "1"])
def test_scans_in_json_of_another_form_are_refused(tmp_path, text):
    (tmp_path / "scans.json").write_text(text)
    for read in (list_scans, load_cohort):
        with pytest.raises(ValueError, match=r"JSON of the form \{\"scans\": \[\{...\}, ...\]\}, got 'scans\.json'"):
            read(tmp_path / "scans.json")


def test_scans_in_json_with_null_lack_the_value(tmp_path):
    path = write_scans(tmp_path, {"case_id": "a", "patient": "p", "image": None, "series": None})
    assert list_scans(path)[0]["input_error"] == "`image` must be given, got an empty cell"
    with pytest.raises(ValueError, match="scan 0: no `image`"):
        load_cohort(path)
    path = write_scans(tmp_path, {"case_id": None, "patient": None, "image": "one"})
    with pytest.raises(ValueError, match="scan 0: `case_id` must be letters"):
        list_scans(path)
    path = write_scans(tmp_path, {"case_id": "a", "patient": None, "image": "one", "series": 3})
    assert list_scans(path) == [{"case_id": "a", "image": str(tmp_path / "one"), "series": "3"}]
    for wrong in (["one"], {"a": 1}, True):
        with pytest.raises(ValueError, match="scan 0: `image` must be text or a number, got"):
            list_scans(write_scans(tmp_path, {"case_id": "a", "image": wrong}))


NOWHERE = {
    "s3://bucket/one": FAR,
    "ftp://host/one": "must be a local path, got an address that begins with 'ftp://'",
    "one\0": "must be a path, got one with a null character",
}


@pytest.mark.parametrize("image", NOWHERE)
@pytest.mark.parametrize("key", ["image", "reference"])
def test_scans_at_no_local_path_are_refused_by_row(tmp_path, image, key):
    scan = {"case_id": "a", "patient": "p", "image": "one", key: image}
    path = write_scans(tmp_path, scan)
    with pytest.raises(ValueError, match=f"scan 0: `{key}` {NOWHERE[image]}"):
        load_cohort(path)
    assert list_scans(path)[0]["input_error"] == f"`{key}` {NOWHERE[image]}"
    (item,) = list_scans(write(tmp_path, "case_id,image", f"a,{image}"))
    assert item == {"case_id": "a", "image": "", "input_error": f"`image` {NOWHERE[image]}"}


def test_scans_behind_a_link_to_itself_are_found_or_missing_without_a_crash(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    path = write_scans(tmp_path, {"case_id": "a", "patient": "p", "image": "loop"})
    assert list_scans(path) == [{"case_id": "a", "patient": "p", "image": str(tmp_path / "loop")}]
    assert [str(error) for error in check_cohort(path).errors] == [
        "scan 0: `image` must exist, got a path without a file"
    ]


def test_scans_with_a_long_case_id_or_path_are_refused_before_anything_is_computed(tmp_path):
    with pytest.raises(ValueError, match="row 2: `case_id` must have at most 200 characters, got 261"):
        list_scans(write(tmp_path, "case_id,image", f"{'a' * 261},one"))
    path = write_scans(tmp_path, {"case_id": "a" * 261, "patient": "p", "image": "n" * 300})
    assert [str(error)[:60] for error in check_cohort(path).errors] == [
        "scan 0: `case_id` must have at most 200 characters, got 261.",
        "scan 0: `image` must exist, got a path without a file",
    ]


def test_single_case_has_an_id_that_other_files_do_not_share(tmp_path):
    for name, content in (("a", "x"), ("b", "y"), ("same", "x")):
        (tmp_path / name).write_text(content)
        os.utime(tmp_path / name, (1, 1))
    ids = {name: single_case(tmp_path / name)["case_id"] for name in ("a", "b", "same")}
    assert ids["a"] == ids["same"] != ids["b"]
    assert single_case(tmp_path / "a", series="2")["case_id"] not in ids.values()
    assert single_case(tmp_path / "a", reference=tmp_path / "b")["case_id"] == ids["a"]
    (tmp_path / "a").write_text("z")
    assert single_case(tmp_path / "a")["case_id"] != ids["a"]


def test_single_case_keeps_series_and_reference(tmp_path):
    assert single_case(tmp_path / "s", "7", 2, tmp_path / "r") == {
        "case_id": "7",
        "image": str(tmp_path / "s"),
        "series": "2",
        "reference": str(tmp_path / "r"),
    }
    assert single_case(tmp_path / "s", "7", stack=2) == {"case_id": "7", "image": str(tmp_path / "s"), "stack": "2"}
    assert single_case(tmp_path / "Secretname")["case_id"] == "case-unreadable"


def test_list_scans_gives_series_and_stack_to_those_that_state_none(tmp_path):
    (tmp_path / "a").mkdir()
    assert [item["stack"] for item in list_scans(tmp_path, stack=2)] == ["2"]
    (tmp_path / "t.csv").write_text("case_id,image,series\nx,a,5\ny,a,\n")
    items = list_scans(tmp_path / "t.csv", series="T1")
    assert [(item["case_id"], item["series"], "stack" in item) for item in items] == [
        ("x", "5", False),
        ("y", "T1", False),
    ]
