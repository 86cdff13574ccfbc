"""Tests of the lists of scans and slides without labels."""

import json
import os
import re

import pytest

from monai_mil_ext.data import check_cohort, list_bags, list_scans, list_slides, load_cohort, single_case


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


def test_list_scans_lists_all_errors(tmp_path):
    table = write(tmp_path, "case_id,image", "a,one", "a,two", "../b,three", "c,../four", "d,")
    with pytest.raises(ValueError, match="4 errors") as error:
        list_scans(table)
    for text in (
        "`case_id` must be unique, got 'a' 2 times: row 2, row 3",
        "row 4: `case_id` must be letters, digits",
        "row 5: `image` must lie in the folder of the scans",
        "row 6: `image` must be given, got an empty cell",
    ):
        assert text in str(error.value)


def test_list_scans_refuses_other_files(tmp_path):
    with pytest.raises(ValueError, match=r"must have the columns 'case_id' and 'image', got \['case', 'image'\]"):
        list_scans(write(tmp_path, "case,image", "a,b"))
    (tmp_path / "scans.json").write_text("{}")
    with pytest.raises(ValueError, match="or JSON of the form"):
        list_scans(tmp_path / "scans.json")
    with pytest.raises(FileNotFoundError, match=r"must be a table of scans that exists, got 'no\.json'"):
        list_scans(tmp_path / "no.json")


def test_list_slides_hides_the_name_of_a_file(tmp_path):
    (tmp_path / "Jane_Doe.svs").touch()
    (item,) = list_slides(tmp_path / "Jane_Doe.svs")
    assert item["image"] == str(tmp_path / "Jane_Doe.svs")
    assert re.fullmatch("case-[0-9a-f]{12}", item["case_id"])
    assert list_slides(tmp_path / "Jane_Doe.svs", "c7")[0]["case_id"] == "c7"
    with pytest.raises(ValueError, match="`case_id` must be letters, digits"):
        list_slides(tmp_path / "Jane_Doe.svs", "../c7")


def test_list_slides_in_a_folder(tmp_path):
    for name in ("b.SVS", "a.h5", ".writing-x.h5", "c.txt", "d e.tif"):
        (tmp_path / name).touch()
    (tmp_path / "z.zarr").mkdir()
    cases = [item["case_id"] for item in list_slides(tmp_path)]
    assert cases[:2] + cases[3:] == ["a", "b", "z"]
    assert cases[2].startswith("slide_")
    assert list_slides(tmp_path / "z.zarr", "z1") == [{"case_id": "z1", "image": str(tmp_path / "z.zarr")}]


def test_list_slides_in_a_table_with_slide_mpp(tmp_path):
    for name in ("a.svs", "b.svs"):
        (tmp_path / name).touch()
    table = tmp_path / "t.csv"
    table.write_text("case_id,image,slide_mpp\nc1,a.svs,0.25\nc2,b.svs,\n")
    first, second = list_slides(table)
    assert (first["case_id"], first["slide_mpp"]) == ("c1", 0.25)
    assert "slide_mpp" not in second
    table.write_text("case_id,image,slide_mpp\nc1,a.svs,fine\n")
    with pytest.raises(ValueError, match="`slide_mpp` must be a positive number, got 'fine' of 'c1'"):
        list_slides(table)


def test_list_slides_refuses_empty_folders_and_repeated_names(tmp_path):
    with pytest.raises(FileNotFoundError, match="`path` must be a slide, a folder or a table that exists, got none"):
        list_slides(tmp_path / "x.svs")
    with pytest.raises(FileNotFoundError, match="`path` must be a folder with slides or feature files"):
        list_slides(tmp_path)
    for name in ("a.svs", "a.h5"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"must be unique, got 'a' in file 1 \(\.h5\) and file 2 \(\.svs\)"):
        list_slides(tmp_path)


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
    with pytest.raises(ValueError, match="scan 0: `image` must be given, got an empty cell"):
        list_scans(path)
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
    "s3://bucket/one": "must be a local path, got an address that begins with 's3://'",
    "one\0": "must be a path, got one with a null character",
}


@pytest.mark.parametrize("image", NOWHERE)
@pytest.mark.parametrize("key", ["image", "reference"])
def test_scans_at_no_local_path_are_refused_by_row(tmp_path, image, key):
    scan = {"case_id": "a", "patient": "p", "image": "one", key: image}
    path = write_scans(tmp_path, scan)
    for read in (list_scans, load_cohort):
        with pytest.raises(ValueError, match=f"scan 0: `{key}` {NOWHERE[image]}"):
            read(path)
    with pytest.raises(ValueError, match=f"row 2: `image` {NOWHERE[image]}"):
        list_scans(write(tmp_path, "case_id,image", f"a,{image}"))


def test_scans_behind_a_link_to_itself_are_found_or_missing_without_a_crash(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    path = write_scans(tmp_path, {"case_id": "a", "patient": "p", "image": "loop"})
    assert list_scans(path) == [{"case_id": "a", "patient": "p", "image": str(tmp_path / "loop")}]
    assert [str(error) for error in check_cohort(path).errors] == [
        "scan 0: `image` must exist, got a path without a file"
    ]
    (tmp_path / "loop.svs").symlink_to("loop.svs")
    assert list_slides(tmp_path) == [{"case_id": "loop", "image": str(tmp_path / "loop.svs")}]
    with pytest.raises(FileNotFoundError, match=r"a slide, a folder or a table that exists, got none"):
        list_slides(tmp_path / "loop.svs")


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


def test_list_bags_of_a_file_and_of_a_folder(tmp_path):
    for name in ("b.npy", "a.h5", "a.tif"):
        (tmp_path / name).touch()
    assert [item["case_id"] for item in list_bags(tmp_path)] == ["a", "b"]
    assert list_bags(tmp_path / "a.h5") == [single_case(tmp_path / "a.h5")]
    (tmp_path / "b.pt").touch()
    with pytest.raises(ValueError, match=r"must be unique, got 'b' in file 2 \(\.npy\) and file 3 \(\.pt\)"):
        list_bags(tmp_path)
