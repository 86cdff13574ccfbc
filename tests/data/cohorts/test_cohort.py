"""Tests of cohorts of scans in JSON and of tables of slides."""

import json

import numpy as np
import pytest

from monai_mil_ext.data import CohortColumns, load_cohort, load_slide_cohort, write_bag

COLUMNS = CohortColumns(bag="slide")


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
        "scan 0: `image` must exist, got a path without a file",
        "scan 1: no `patient`",
        "scan 1: `image` must be a path, got 3",
        "scan 2: `case_id` must be letters",
        "scan 2: `image` must lie in the folder of the cohort, got a path that leads out of it",
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


def encode(items):
    """Write features next to each slide, with the number of tiles in the slide's name."""
    for item in items:
        write_bag(f"{item['image']}.h5", {"features": np.zeros((int(item["case_id"][-1]), 4), np.float32)})
    return [{**item, "image": f"{item['image']}.h5"} for item in items]


def write_slides(folder, *rows):
    (folder / "cohort.csv").write_text("\n".join(["slide,patient,label", *rows]))
    for row in rows:
        (folder / row.split(",")[0]).write_bytes(b"slide")
    return folder / "cohort.csv"


def test_load_slide_cohort_items_equal_those_of_feature_files(tmp_path):
    table = write_slides(tmp_path, "s3.svs,p,1", "s5.svs,p,1", "s2.svs,q,0")
    items = load_slide_cohort(table, encode, COLUMNS)
    assert [(item["case_id"], item["num_instances"], item["label"]) for item in items] == [
        ("s3", 3, 1),
        ("s5", 5, 1),
        ("s2", 2, 0),
    ]
    assert items[0]["image"] == str(tmp_path / "s3.svs.h5")
    patients = load_slide_cohort(table, encode, COLUMNS, level="patient")
    assert [(item["case_id"], item["num_instances"], len(item["image"])) for item in patients] == [
        ("p", 8, 2),
        ("q", 2, 1),
    ]


def test_load_slide_cohort_checks_the_table_before_encoding(tmp_path):
    table = write_slides(tmp_path, "s3.svs,p,1", "s5.svs,,1")
    with pytest.raises(ValueError, match="`patient` must be given, got an empty cell"):
        load_slide_cohort(table, pytest.fail, COLUMNS)
    table = write_slides(tmp_path, "s3.svs,p,1", "s5.svs,p,0")
    with pytest.raises(ValueError, match="`label` must be the same for all bags"):
        load_slide_cohort(table, encode, COLUMNS, level="patient")
