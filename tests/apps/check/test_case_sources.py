from pathlib import Path

import pytest

from monai_mil_ext.apps.check.case_sources import read_cases
from monai_mil_ext.data import CohortColumns, check_cohort, load_cohort, study_columns
from monai_mil_ext.utils import write_csv, write_json
from tests.apps.check.cohorts import bag_rows, messages, scan_rows


def read(folder, rows, kind="bags", **options):
    write_csv(folder / "t.csv", rows)
    return read_cases(folder / "t.csv", kind, **options)


@pytest.mark.parametrize(
    ("names", "case"),
    [
        ({"case_id": "case_id", "patient": "patient", "image": "image"}, "c1"),
        ({"case_id": "Case ID", "patient": "Patient ID", "image": "Image"}, "c1"),
        ({"case_id": "Case_ID", "patient": "PATIENT", "image": "FILENAME"}, "b1"),  # STAMP
        ({"patient": "case_id", "image": "slide_id"}, "b1"),  # CLAM
        ({"patient": "patient", "image": "bag"}, "b1"),
    ],
)
def test_columns_are_found_by_the_names_of_several_tools(tmp_path, names, case):
    rows = bag_rows(tmp_path)
    cases, problems, _ = read(tmp_path, [{name: row[key] for key, name in names.items()} for row in rows])
    assert problems == []
    assert (cases[1].name, cases[1].patient, cases[1].paths) == (case, "p1", [str(tmp_path / "b1.h5")])


def test_given_columns_come_first_and_one_in_several_is_a_list(tmp_path):
    rows = [{**row, "name": "x" + row["case_id"], "a": 1, "b": ""} for row in bag_rows(tmp_path)]
    cases, _, _ = read(tmp_path, rows, columns=CohortColumns(case="name", label=["a", "b"]))
    assert (cases[0].name, cases[0].item["label"]) == ("xc0", ["1", ""])


def test_files_are_found_by_path_or_name_below_the_root(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    rows = bag_rows(tmp_path / "in" / "deep")
    rows[1]["image"] = "b1"
    cases, _, _ = read(tmp_path, rows, root=tmp_path / "in")
    assert cases[0].paths == [str(tmp_path / "in" / "deep" / "b0.h5")]
    assert cases[1].paths == [str(tmp_path / "in" / "deep" / "b1.h5")]


def test_a_case_without_a_patient_is_its_own(tmp_path):
    cases, _, _ = read(tmp_path, [{"image": row["image"]} for row in bag_rows(tmp_path)])
    assert [case.patient for case in cases] == [f"b{i}" for i in range(8)]


def test_ids_keep_their_zeros(tmp_path):
    rows = [{**row, "case_id": name} for row, name in zip(bag_rows(tmp_path), ("7", "007", "7.0"), strict=False)]
    cases, problems, _ = read(tmp_path, rows)
    assert ([case.name for case in cases], problems) == (["7", "007", "7.0"], [])
    report = check_cohort(tmp_path / "t.csv", study_columns(tmp_path / "t.csv", CohortColumns())[0])
    assert [item["case_id"] for item in report.items] == ["7", "007", "7.0"]


def test_a_list_in_json_may_stand_alone_and_has_values_of_any_type(tmp_path):
    rows = scan_rows(tmp_path, 3)
    rows[0]["patient"], rows[1]["image"], rows[2]["site"] = 7, 8, None
    write_json(tmp_path / "t.json", {"scans": rows})
    cases, _, _ = read_cases(tmp_path / "t.json", "scans")
    assert cases[0].patient == "7"
    assert "`image` must be a path" in messages(cases[1].problems)
    assert "site" not in cases[2].item


def test_a_folder_of_slides_or_bags_is_listed(tmp_path):
    bag_rows(tmp_path, 3)
    cases, _, _ = read_cases(tmp_path, "bags")
    assert [case.name for case in cases] == ["b0", "b1", "b2"]


def test_a_lost_reference_is_a_problem(tmp_path):
    cases, _, _ = read(tmp_path, [{**row, "reference": "lost.nii"} for row in scan_rows(tmp_path, 2)], "scans")
    assert "`reference` must exist" in messages(cases[0].problems)


def test_a_table_of_files_and_one_of_patients_are_joined(tmp_path):
    rows = bag_rows(tmp_path)
    write_csv(tmp_path / "slide.csv", [{"FILENAME": row["image"], "PATIENT": row["patient"]} for row in rows])
    write_csv(tmp_path / "clini.csv", [{"PATIENT": row["patient"], "KRAS": row["label"]} for row in rows])
    tables = [tmp_path / "clini.csv", tmp_path / "slide.csv"]
    cases, problems, _ = read_cases(tables, "bags", CohortColumns(label="KRAS"))
    assert problems == []
    assert [(case.patient, case.item["label"]) for case in cases[:2]] == [("p0", "0"), ("p1", "1")]
    with pytest.raises(ValueError, match="one of them 'bag'"):
        read_cases([tables[0], tables[0]], "bags")


def test_the_cases_are_those_of_a_study(tmp_path):
    rows = [
        {"Image": row["image"], "Patient ID": row["patient"], "OS_months": 3, "OS_event": 1}
        for row in bag_rows(tmp_path)
    ]
    cases, problems, notes = read(tmp_path, rows)
    columns, labels, of_study = study_columns(tmp_path / "t.csv")
    items = load_cohort(tmp_path / "t.csv", columns)
    assert (problems, labels.kind, [note.message for note in notes]) == ([], "survival", of_study)
    assert [(case.name, case.patient, case.paths[0]) for case in cases] == [
        (item["case_id"], item["patient"], item["image"]) for item in items
    ]
    assert [(case.item["time"], case.item["event"]) for case in cases] == [("3", "1")] * 8


def test_a_misspelled_column_of_patients_is_a_problem(tmp_path):
    _, problems, _ = read(tmp_path, [{"bag": row["image"], "pateint": row["patient"]} for row in bag_rows(tmp_path)])
    assert "column 'patient' must exist, got 'bag', 'pateint'; did you mean 'pateint'?" in messages(problems)


@pytest.mark.parametrize(("prefer", "suffix"), [("features", ".h5"), ("slides", ".svs")])
def test_slides_and_their_features_may_lie_side_by_side(tmp_path, prefer, suffix):
    (tmp_path / "features").mkdir()
    bag_rows(tmp_path / "features")
    (tmp_path / "b1.svs").touch()
    (tmp_path / "t.csv").write_text("bag,label\nb1,0\n")
    ((case,), problems, _) = read_cases(tmp_path / "t.csv", "slides", prefer=prefer)
    assert (problems, case.problems, Path(case.paths[0]).suffix) == ([], [], suffix)
