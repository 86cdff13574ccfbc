"""load_cohort of scans in JSON."""

import json

import pytest

from monai_mil_ext.data import load_cohort


def write(folder, scans):
    (folder / "cohort.json").write_text(json.dumps({"license": "none", "scans": scans}))
    return folder / "cohort.json"


def test_load_cohort_resolves_paths_and_keeps_other_entries(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "m.nii").touch()
    scan = {"case_id": "a", "patient": "p", "image": "a", "reference": "m.nii", "label": 1}
    other = {"case_id": "b", "patient": "p", "image": "./a/../m.nii"}
    first, second = load_cohort(write(tmp_path, [scan, other]))
    assert first == {**scan, "image": str(tmp_path / "a"), "reference": str(tmp_path / "m.nii")}
    assert second["image"] == str(tmp_path / "m.nii")


def test_load_cohort_lists_all_errors(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out.nii").touch()
    scans = [
        {"case_id": "a", "patient": "p", "image": "none.nii"},
        {"case_id": "a", "image": 3},
        {"case_id": "../x", "patient": "p", "image": "../out.nii"},
        {"case_id": "c", "patient": "p", "image": str(tmp_path / "out.nii"), "reference": ""},
    ]
    with pytest.raises(ValueError, match=r"cohort.json must be a valid cohort, got 8 errors") as error:
        load_cohort(write(tmp_path / "in", scans))
    for line in (
        "scan 0: `image` must exist, got 'none.nii'",
        "scan 1: no `patient`",
        "scan 1: `image` must be a path, got 3",
        "scan 2: `case_id` must be letters",
        "scan 2: `image` must lie in the folder of the cohort, got '../out.nii'",
        "scan 3: `image` must lie in the folder of the cohort",
        "scan 3: `reference` must be a path, got ''",
        "`case_id` must be unique, got 'a' 2 times",
    ):
        assert line in str(error.value)


def test_load_cohort_refuses_links_out_of_the_folder(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out.nii").touch()
    (tmp_path / "in" / "link.nii").symlink_to(tmp_path / "out.nii")
    with pytest.raises(ValueError, match="scan 0: `image` must lie in the folder"):
        load_cohort(write(tmp_path / "in", [{"case_id": "a", "patient": "p", "image": "link.nii"}]))


@pytest.mark.parametrize("text", ["{", "[]", '{"scans": {}}', '{"scans": []}', '{"scans": ["a"]}', "{}"])
def test_load_cohort_names_a_file_that_is_no_cohort(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ValueError, match=r"`path` must be JSON of the form .*, got 'c.json'"):
        load_cohort(tmp_path / "c.json")
    with pytest.raises(FileNotFoundError, match=r"a cohort file that exists, got 'none.json'"):
        load_cohort(tmp_path / "none.json")
