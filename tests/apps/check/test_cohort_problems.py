import shutil

import pytest

from monai_mil_ext.apps.check import CheckSettings
from tests.apps.check.cohorts import BAGS, bag_rows, check, messages, scan_rows
from tests.scans import write_series


def test_one_file_in_two_cases_and_a_copy_are_found(tmp_path):
    rows = bag_rows(tmp_path)
    rows[2]["image"] = "b0.h5"
    shutil.copyfile(tmp_path / "b5.h5", tmp_path / "b6.h5")
    text = messages(check(tmp_path, rows).problems)
    assert "got one file in 'c0', 'c2'" in text
    assert "got copies of one file in 'c5', 'c6'" in text


def test_each_wrong_name_is_one_problem(tmp_path):
    rows = bag_rows(tmp_path, 12)
    for i in (0, 1):
        rows[i]["case_id"] = f"../{i}"
    names = [problem.message.partition(" must")[0] for problem in check(tmp_path, rows).problems]
    assert names == ["`case_id`"] * 2  # names that were refused are not equal names
    rows = [*bag_rows(tmp_path, 12), *[{**row, "site": "B"} for row in bag_rows(tmp_path)[:1] * 7]]
    (problem,) = check(tmp_path, rows).problems
    expected = "`case_id` must be unique, got 'c0' 8 times: row 2, row 14, row 15, row 16, row 17 and 3 more"
    assert problem.message == expected


def test_a_copied_folder_is_found_and_two_series_of_a_folder_are_not(tmp_path):
    rows = scan_rows(tmp_path)
    write_series(tmp_path / "d")
    shutil.copytree(tmp_path / "d", tmp_path / "e")
    write_series(tmp_path / "two", series=1)
    write_series(tmp_path / "two", series=2)
    rows += [{"case_id": name, "patient": name, "image": name, "label": 0} for name in "de"]
    rows += [{"case_id": n, "patient": n, "image": "two", "label": 1, "series": f"1.2.826.0.1.{n}"} for n in "12"]
    found = check(tmp_path, rows, CheckSettings(num_folds=3))
    assert [problem.message for problem in found.problems] == [
        "`image` must be another scan in each case, got copies of one file in 'd', 'e'"
    ]


def test_a_patient_in_two_splits_and_an_unknown_split_are_found(tmp_path):
    rows = [{**row, "split": "Training" if i < 6 else "test"} for i, row in enumerate(bag_rows(tmp_path))]
    assert check(tmp_path, rows).status == 0
    rows[7]["patient"] = "p0"
    rows[1]["split"] = "validate"
    found = check(tmp_path, rows)
    assert "a patient must be in one split, got 'p0' in test and train: 'c0', 'c7'" in messages(found.problems)
    assert "got 'validate'" in messages(found.problems, "c1")
    rows = [{**row, "split": "train"} for row in rows]
    assert "must have cases in train and test, got only train" in messages(check(tmp_path, rows).problems)


def test_contradictory_labels_of_a_patient_depend_on_the_level(tmp_path):
    rows = bag_rows(tmp_path, 10)
    rows[1]["patient"] = "p0"
    found = check(tmp_path, rows)
    assert (found.status, messages(found.notes)) == (0, "1 patient with several values of `label`: 'p0' 0 and 1")
    found = check(tmp_path, rows, CheckSettings("bags", level="patient", num_folds=3))
    assert "`label` must be the same in all cases of a patient, got 'p0' 0 and 1" in messages(found.problems)


@pytest.mark.parametrize(("sizes", "is_problem"), [((6, 2), True), ((6, 4), False)])
def test_classes_too_small_for_the_folds_are_found(tmp_path, sizes, is_problem):
    labels = [0] * sizes[0] + [1] * sizes[1]
    rows = [{**row, "label": label} for row, label in zip(bag_rows(tmp_path, sum(sizes)), labels, strict=True)]
    found = check(tmp_path, rows, CheckSettings("bags", num_folds=5))
    assert found.status == is_problem
    if is_problem:
        assert "got 2 patients of label '1'" in messages(found.problems)
    else:
        assert [(note.message, note.option) for note in found.notes] == [
            ("4 patients of label '1' for 5 folds: some have none to test", "--num_folds 4")
        ]


def test_several_encoders_and_one_class_are_problems(tmp_path):
    rows = bag_rows(tmp_path, encoder=lambda i: "uni" if i < 4 else "gigapath")
    found = check(tmp_path, rows)
    assert "encoder must be the same in all files, got 'uni' in 4, 'gigapath' in 4" in messages(found.problems)
    found = check(tmp_path, rows, CheckSettings("bags", num_folds=3, allow_mismatch=True))
    assert found.status == 0
    assert "encoder is not the same" in messages(found.notes)
    found = check(tmp_path, [{**row, "label": 1} for row in rows])
    assert "`label` must have at least 2 classes, got '1' in all rows" in messages(found.problems)


def test_several_modalities_and_planes_are_found(tmp_path):
    rows = []
    for i in range(8):
        turned = (0, 1, 0, 0, 0, -1) if i == 7 else (1, 0, 0, 0, 1, 0)
        write_series(tmp_path / f"s{i}", shape=(6, 5, 4 + i), orientation=turned, Modality="MR" if i == 3 else "CT")
        rows.append({"case_id": f"c{i}", "patient": f"p{i}", "image": f"s{i}", "label": i % 2})
    found = check(tmp_path, rows, CheckSettings(num_folds=3))
    assert "modality must be the same in all files, got 'CT' in 7, 'MR' in 1" in messages(found.problems)
    assert "plane is not the same in all files: 'axial' in 7, 'sagittal' in 1" in messages(found.notes)


@pytest.mark.parametrize("name", ["site", "split"])
def test_a_label_that_follows_from_another_column_is_noted(tmp_path, name):
    rows = [{**row, name: ("train", "test")[i % 2]} for i, row in enumerate(bag_rows(tmp_path))]
    assert f"{name} and label are confounded" in messages(check(tmp_path, rows).notes)


def test_a_label_that_follows_from_the_scanner_is_noted(tmp_path):
    rows = []
    for i in range(8):
        write_series(tmp_path / f"s{i}", shape=(6, 5, 4 + i), spacing=(0.9, 0.9, 2.5 if i % 2 else 5.0))
        rows.append({"case_id": f"c{i}", "patient": f"p{i}", "image": f"s{i}", "label": i % 2})
    text = messages(check(tmp_path, rows, CheckSettings(num_folds=3)).notes)
    assert "slice distance and label are confounded: class 0 is all 5 mm, class 1 all 2.5 mm" in text


def test_scans_of_very_different_numbers_of_slices_are_noted(tmp_path):
    rows = scan_rows(tmp_path)
    write_series(tmp_path / "long", shape=(6, 5, 50))
    write_series(tmp_path / "short", shape=(6, 5, 2))
    rows += [{"case_id": name, "patient": name, "image": name, "label": 0} for name in ("long", "short")]
    text = messages(check(tmp_path, rows, CheckSettings(num_folds=3)).notes)
    assert "2 slices or instances, less than a quarter of the median of 10, in 'short'" in text
    assert "50 slices or instances, more than four times the median of 10, in 'long'" in text


def test_no_problem_of_the_cohort_stands_in_its_rows(tmp_path):
    rows = bag_rows(tmp_path)
    rows[1]["case_id"] = "c0"
    found = check(tmp_path, rows, BAGS)
    assert (found.status, {row["status"] for row in found.rows}) == (1, {"ok"})
