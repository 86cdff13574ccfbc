import csv
import json

import numpy as np
import pytest

from monai_mil_ext.apps.check import CheckSettings, check_items, check_table
from monai_mil_ext.data import CohortColumns
from monai_mil_ext.utils import write_csv, write_json
from tests.apps.check.cohorts import BAGS, bag_rows, check, messages, scan_rows
from tests.scans import write_series

SCANS = CheckSettings("scans", hounsfield=True, num_folds=3)


def test_a_good_cohort_has_no_problems(tmp_path):
    found = check(tmp_path, bag_rows(tmp_path))
    assert (found.status, found.problems, found.notes) == (0, [], [])
    assert found.task == "The labels make a classification of 2 classes: 0, 1."
    assert [(row["value"], row["patients"], row["cases"]) for row in found.counts] == [("0", 4, 4), ("1", 4, 4)]
    found.exit_if_problems()


def test_all_problems_are_found_at_once(tmp_path):
    rows = scan_rows(tmp_path)
    (tmp_path / "DOE_JOHN_1.nii.gz").write_bytes(b"no scan")
    rows[2]["image"] = "DOE_LOST.nii.gz"
    rows[3]["label"] = ""
    rows[4]["case_id"] = "c0"
    rows[5]["image"] = "../DOE_OUTSIDE.nii.gz"
    rows[6]["image"] = ""
    rows[7]["case_id"] = "a/b"
    found = check(tmp_path, rows, SCANS)
    assert found.status == 1
    assert "undamaged scan, got a NIfTI file" in messages(found.problems, "c1")
    assert "must exist, got a path without a file" in messages(found.problems, "c2")
    assert "`label` must be" in messages(found.problems, "c3")
    assert "`case_id` must be unique, got 'c0' 2 times: row 2, row 6" in messages(found.problems)
    assert "must lie below `root`" in messages(found.problems, "c5")
    assert [problem.option for problem in found.problems if problem.case == "c5"] == ["--root /"]
    assert "must be given, got an empty cell" in messages(found.problems, "c6")
    assert "`case_id` must" in messages(found.problems, "row 9")
    with pytest.raises(SystemExit, match="1"):
        found.exit_if_problems()


def test_nothing_that_is_written_names_a_file(tmp_path):
    rows = scan_rows(tmp_path)
    (tmp_path / "DOE_JOHN_1.nii.gz").write_bytes(b"no scan")
    write_series(tmp_path / "DOE_JANE")
    rows.append({"case_id": "c8", "patient": "p8", "image": "DOE_JANE", "label": 0})
    rows.append({"case_id": "c9", "patient": "p9", "image": "DOE_LOST/DOE.nii", "label": 0})
    found = check(tmp_path, rows, SCANS)
    found.write(tmp_path / "out")
    texts = [found.text(), *(path.read_text() for path in (tmp_path / "out").iterdir())]
    assert len(texts) == 3
    assert all("DOE" not in text and str(tmp_path) not in text for text in texts)


def test_the_files_have_a_row_a_case(tmp_path):
    write_series(tmp_path / "series")
    rows = [*scan_rows(tmp_path, 6), {"case_id": "d", "patient": "q", "image": "series", "label": 1, "site": "A"}]
    found = check(tmp_path, rows, CheckSettings(num_folds=3))
    found.write(tmp_path / "out")
    with (tmp_path / "out" / "check.csv").open() as file:
        table = {row["case_id"]: row for row in csv.DictReader(file)}
    assert list(table) == [*(f"c{i}" for i in range(6)), "d"]
    assert table["d"] | {"lowest": "", "highest": "", "notes": ""} == table["d"] | {
        "container": "DICOM series",
        "shape": "6 x 5 x 4",
        "spacing": "0.9 x 0.7 x 2.5",
        "plane": "axial",
        "modality": "CT",
        "instances": "4",
        "site": "A",
        "label": "1",
        "status": "ok",
        "lowest": "",
        "highest": "",
        "notes": "",
    }
    report = json.loads((tmp_path / "out" / "check.json").read_text())
    assert (report["num_cases"], report["status"], len(report["cases"])) == (7, 0, 7)


def test_json_and_a_folder_are_cohorts_too(tmp_path):
    rows = scan_rows(tmp_path, 6)
    write_json(tmp_path / "cohort.json", {"scans": rows})
    found = check_table(tmp_path / "cohort.json", SCANS)
    assert (found.status, len(found.rows), found.rows[1]["label"]) == (0, 6, 1)
    (tmp_path / "cohort.json").unlink()
    found = check_table(tmp_path, SCANS)
    assert (found.status, len(found.rows)) == (0, 6)
    assert found.task == "There are no labels: nothing can be trained, only predicted."


def test_items_are_checked_as_a_table_is(tmp_path):
    rows = [{**row, "image": str(tmp_path / row["image"])} for row in bag_rows(tmp_path)]
    found = check_items(rows, BAGS)
    assert (found.status, len(found.rows)) == (0, 8)
    rows[3] = {**rows[3], "image": [rows[3]["image"], rows[2]["image"]]}
    assert check_items(rows, BAGS).rows[3]["instances"] == 12


def test_a_table_without_files_says_which_option_names_them(tmp_path):
    write_csv(tmp_path / "t.csv", [{"case_id": "a", "picture": "a.nii"}])
    found = check_table(tmp_path / "t.csv")
    assert found.problems[0].option == "--columns#bag NAME"
    found = check_table(tmp_path / "t.csv", columns=CohortColumns(label="grade"))
    assert "column 'grade' must exist, got 'case_id', 'picture'" in messages(found.problems)


def test_what_is_no_table_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="that exists"):
        check_table(tmp_path / "t.csv")
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(ValueError, match=r"must be \.csv"):
        check_table(tmp_path / "t.json")
    (tmp_path / "t.csv").write_text("case_id,image\na,b.nii\n")
    with pytest.raises(FileNotFoundError, match="`root` must be a folder"):
        check_table(tmp_path / "t.csv", root=tmp_path / "lost")


def test_the_text_lists_cases_with_problems_first_and_one_line_for_one_problem(tmp_path):
    rows = scan_rows(tmp_path, 12)
    for i in (8, 9, 10):
        rows[i]["image"] = "lost.nii"
    text = check(tmp_path, rows, SCANS).text(max_rows=4)
    lines = text.splitlines()
    assert lines[0].startswith("cohort.csv: 12 cases of 12 patients, checked in")
    assert [line.split()[0] for line in lines[3:7]] == ["c8", "c9", "c10", "c0"]
    assert "... and 8 more in check.csv" in lines
    assert "  c8, c9, c10: `image` must exist, got a path without a file" in lines
    assert "modality" not in lines[2]  # no file states one


def test_the_range_of_a_sample_is_stated(tmp_path):
    found = check(tmp_path, scan_rows(tmp_path, 6, values=(-1000, 400)), SCANS)
    assert all(-1000 <= row["lowest"] < -900 and 300 < row["highest"] < 400 for row in found.rows)
    assert np.array([row["shape"] for row in found.rows]).tolist() == [[12, 11, 10]] * 6
