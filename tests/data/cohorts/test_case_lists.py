"""list_scans: items of a table, and a list of all its errors."""

import json

import pytest

from monai_mil_ext.data import list_scans


def write(tmp_path, *lines):
    (tmp_path / "scans.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "scans.csv"


def test_load_scans_resolves_paths(tmp_path):
    table = write(tmp_path, "case_id,image,series,doctor", "a,one,,x", "b,two.nii.gz,5,y")
    assert list_scans(table) == [
        {"case_id": "a", "image": str(tmp_path / "one")},
        {"case_id": "b", "image": str(tmp_path / "two.nii.gz"), "series": "5"},
    ]
    assert list_scans(table, tmp_path / "archive")[0]["image"] == str(tmp_path / "archive" / "one")
    scans = {"scans": [{"case_id": "a", "image": "one", "patient": "p"}]}
    (tmp_path / "scans.json").write_text(json.dumps(scans))
    assert list_scans(tmp_path / "scans.json") == [{"case_id": "a", "patient": "p", "image": str(tmp_path / "one")}]


def test_load_scans_keeps_requested_columns(tmp_path):
    table = write(tmp_path, "case_id,image,label,mpp", "a,one,2,", "b,two,,0.5")
    assert [set(item) for item in list_scans(table)] == [{"case_id", "image"}] * 2
    first, second = list_scans(table, keep=["label", "mpp", "age"])
    assert (first["label"], set(first)) == ("2", {"case_id", "image", "label"})
    assert (second["mpp"], set(second)) == ("0.5", {"case_id", "image", "mpp"})
    (tmp_path / "scans.json").write_text(json.dumps({"scans": [{"case_id": "a", "image": "one", "mpp": 0.5}]}))
    assert list_scans(tmp_path / "scans.json", keep=["mpp"])[0]["mpp"] == "0.5"


def test_load_scans_lists_all_errors(tmp_path):
    table = write(tmp_path, "case_id,image", "a,one", "a,two", "../b,three", "c,../four", "d,")
    with pytest.raises(ValueError, match="4 errors") as error:
        list_scans(table)
    for text in (
        "`case_id` must be unique, got 'a' 2 times",
        "row 4: `case_id` must be letters, digits",
        "row 5: `image` must lie in the folder of the scans",
        "row 6: `image` must be given, got an empty cell",
    ):
        assert text in str(error.value)


def test_load_scans_refuses_other_files(tmp_path):
    with pytest.raises(ValueError, match=r"must have the columns 'case_id' and 'image', got \['case', 'image'\]"):
        list_scans(write(tmp_path, "case,image", "a,b"))
    (tmp_path / "scans.json").write_text("{}")
    with pytest.raises(ValueError, match="or JSON of the form"):
        list_scans(tmp_path / "scans.json")
    with pytest.raises(FileNotFoundError, match=r"must be a table of scans that exists, got 'no\.json'"):
        list_scans(tmp_path / "no.json")
