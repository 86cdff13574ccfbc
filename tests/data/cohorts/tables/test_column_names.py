"""Tests of columns that are found by their names."""

import pytest

from monai_mil_ext.data import CohortColumns, check_cohort, load_cohort
from monai_mil_ext.data.cohorts.table_file import Table
from monai_mil_ext.data.cohorts.tables.column_names import find_header, name_columns
from tests.data.cohort_files import texts, write_bags, write_table


def named(headers, columns=None, rows=()):
    cells = [dict(zip(headers, row, strict=True)) for row in rows]
    return name_columns(Table(list(headers), cells, list(range(2, len(cells) + 2))), columns or CohortColumns())


@pytest.mark.parametrize(
    ("headers", "bag", "patient", "case"),
    [
        (["bag", "patient", "label"], "bag", "patient", None),
        (["case_id", "patient", "image", "label"], "image", "patient", "case_id"),
        (["Case ID", "Patient", "IMAGE", "label", "slide"], "IMAGE", "Patient", "Case ID"),
        (["case_id", "slide_id", "label"], "slide_id", "case_id", None),  # CLAM
        (["PATIENT", "FILENAME", "SLIDE", "KRAS"], "FILENAME", "PATIENT", None),  # STAMP
        (["wsi", "mpp", "label"], "wsi", None, None),  # TRIDENT
        (["bag_name", "label"], "bag_name", None, None),  # torchmil
        (["patient", "slide", "category"], "slide", "patient", None),  # slideflow
        (["subject_id", "image", "label"], "image", "subject_id", None),
    ],
)
def test_columns_of_this_package_and_of_other_tools(headers, bag, patient, case):
    found = named(headers)
    assert found.errors == []
    assert (found.columns.bag, found.columns.patient, found.columns.case) == (bag, patient, case)


def test_a_note_says_which_column_was_taken_for_what():
    assert named(["case_id", "slide_id", "hospital"]).notes == [
        "column 'slide_id' is taken for the bag",
        "column 'case_id' is taken for the patient",
        "column 'hospital' is taken for the site",
    ]
    assert named(["case_id", "patient", "image", "label"]).notes == []


def test_an_exact_header_comes_before_one_of_another_case():
    assert find_header("label", ["LABEL", "label", "Label"]) == "label"
    assert find_header("label", ["LABEL", "Label"]) is None
    assert named(["bag", "Bag", "patient"]).columns.bag == "bag"


def test_columns_that_can_be_confused_are_an_error():
    assert named(["slide_id", "wsi", "patient"]).errors == [
        "columns 'slide_id' and 'wsi' may each be the bag: give --columns#bag slide_id"
    ]
    assert named(["bag", "patient_id", "subject"]).errors == [
        "columns 'patient_id' and 'subject' may each be the patient: give --columns#patient patient_id"
    ]
    errors = named(["case_id", "image"], rows=[["p", "a.h5"], ["p", "b.h5"]]).errors
    assert [error.partition(":")[0] for error in errors] == [
        "column 'case_id' has repeated values and there is no column of patients"
    ]
    found = named(["bag", "center", "hospital"])
    assert found.columns.site is None
    assert "columns 'center' and 'hospital' may be the site, and none is taken: give --columns#site" in found.notes


def test_a_misspelled_patient_does_not_separate_the_bags_of_a_patient(tmp_path):
    write_bags(tmp_path, {"a": 2})
    table = write_table(tmp_path / "c.csv", [["bag", "patinet", "label"], ["a", "p", "0"]])
    with pytest.raises(ValueError, match=r"column 'patient' must exist, .* did you mean 'patinet'"):
        load_cohort(table)


def test_without_a_column_of_patients_every_case_is_its_own_patient(tmp_path):
    write_bags(tmp_path, {"a": 2, "b": 2})
    table = write_table(tmp_path / "c.csv", [["case_id", "image", "label"], ["c1", "a.h5", "0"], ["c2", "b.h5", "1"]])
    report = check_cohort(table, CohortColumns())
    assert [(item["case_id"], item["patient"]) for item in report.items] == [("c1", "c1"), ("c2", "c2")]
    assert any("every case counts as its own patient" in note for note in texts(report.notes))
    with pytest.raises(ValueError, match="column 'who' must exist"):
        load_cohort(table, CohortColumns(patient="who"))


def test_site_split_and_covariates_are_in_the_items(tmp_path):
    write_bags(tmp_path, {"a": 2, "b": 2})
    rows = [
        ["case_id", "patient", "image", "label", "site", "split", "age", "sex"],
        ["c1", "p", "a.h5", "0", "north", "Training", "50", "f"],
        ["c2", "q", "b.h5", "1", "", "", "", "m"],
    ]
    table = write_table(tmp_path / "c.csv", rows)
    first, second = load_cohort(table, CohortColumns(covariates=["age", "sex"]))
    assert (first["site"], first["split"], first["covariates"]) == ("north", "train", {"age": "50", "sex": "f"})
    assert (second["site"], second["split"], second["covariates"]) == ("", "", {"age": "", "sex": "m"})
    with pytest.raises(ValueError, match="column 'weight' must exist"):
        load_cohort(table, CohortColumns(covariates=["weight"]))


def test_an_empty_column_of_splits_is_no_split():
    assert named(["bag", "patient", "split"], rows=[["a", "p", ""], ["b", "q", ""]]).columns.split is None
    assert named(["bag", "patient", "split"], rows=[["a", "p", ""], ["b", "q", "test"]]).columns.split == "split"


def test_a_part_of_another_name_is_an_error_of_its_row(tmp_path):
    write_bags(tmp_path, {"a": 2, "b": 2})
    rows = [["bag", "patient", "label", "split"], ["a", "p", "0", "train"], ["b", "q", "0", "external"]]
    report = check_cohort(write_table(tmp_path / "c.csv", rows), CohortColumns())
    assert [item["split"] for item in report.items] == ["train"]
    assert "`split` must be train, val, test or empty, got 'external'" in texts(report.errors)[0]


def test_a_split_that_is_none_is_ignored_unless_it_is_named(tmp_path):
    write_bags(tmp_path, {"a": 2})
    table = write_table(tmp_path / "c.csv", [["bag", "patient", "label", "split"], ["a", "p", "0", "fold 3"]])
    report = check_cohort(table, CohortColumns())
    assert "split" not in report.items[0]
    assert "row 1: column 'split' is not used: parts are train, val and test, got 'fold 3'" in texts(report.notes)
    with pytest.raises(ValueError, match="`split` must be train, val, test or empty, got 'fold 3'"):
        load_cohort(table, CohortColumns(split="split"))


@pytest.mark.parametrize(
    ("column", "message"),
    [("site", "`site` must be the same"), ("split", "`split` must be the same"), ("age", "`covariate age` must be")],
)
def test_values_of_a_patient_must_agree(tmp_path, column, message):
    write_bags(tmp_path, {"a": 2, "b": 2})
    rows = [["bag", "patient", "label", "site", "split", "age"], ["a", "p", "0", "n", "val", "50"]]
    rows.append(["b", "p", "0", "n", "val", "50"])
    covariates = CohortColumns(covariates=["age"])
    (item,) = load_cohort(write_table(tmp_path / "c.csv", rows), covariates, level="patient")
    assert (item["site"], item["split"], item["covariates"]) == ("n", "val", {"age": "50"})
    rows[2][rows[0].index(column)] = "test"
    with pytest.raises(ValueError, match=f"patient 'p': {message}"):
        load_cohort(write_table(tmp_path / "c.csv", rows), covariates, level="patient")


def test_clinical_columns_of_a_second_table(tmp_path):
    write_bags(tmp_path, {"a": 2, "b": 2})
    slides = write_table(tmp_path / "slide.csv", [["FILENAME", "PATIENT"], ["a.h5", "p"], ["b.h5", "q"]])
    clini = write_table(tmp_path / "clini.csv", [["Patient", "KRAS", "AGE"], ["p", "1", "50"], ["q", "0", "60"]])
    items = load_cohort([slides, clini], CohortColumns(label="kras", covariates=["age"]))
    assert [(item["patient"], item["label"], item["covariates"]) for item in items] == [
        ("p", 1, {"AGE": "50"}),
        ("q", 0, {"AGE": "60"}),
    ]
