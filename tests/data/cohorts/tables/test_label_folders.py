"""Tests of labels that lie in folders beside a table, as in the data sets of torchmil."""

import numpy as np
import pytest

from monai_mil_ext.data import CohortColumns, check_cohort, load_cohort, study_columns
from monai_mil_ext.transforms import LoadBagd
from tests.data.cohort_files import texts, write_table

SLICES = {"a": [0, 1, 1], "b": [0, 0], "c": [1, 0, 0, 0], "d": [0]}


def write_set(folder, place=".", of_instances="slice_labels", rows=None):
    """Write a data set of torchmil with two encoders, and return its table, with a row for each slice."""
    for name, labels in SLICES.items():
        arrays = {f"features/features_resnet{n}": np.full((len(labels), n), n, np.float32) for n in (18, 50)}
        arrays |= {"labels": np.array([max(labels)]), of_instances: np.array(labels), "coords": np.zeros((1, 2))}
        for part, values in arrays.items():
            (folder / place / part).mkdir(parents=True, exist_ok=True)
            np.save(folder / place / part / f"{name}.npy", values)
    rows = rows or [[name, "test" if name == "d" else "train"] for name, labels in SLICES.items() for _ in labels]
    return write_table(folder / "splits.csv", [["bag_name", "split"], *rows])


@pytest.mark.parametrize("place", [".", "patches_512"])
@pytest.mark.parametrize("of_instances", ["slice_labels", "patch_labels", "inst_labels"])
def test_load_cohort_reads_the_splits_of_torchmil(tmp_path, place, of_instances):
    table = write_set(tmp_path, place, of_instances)
    root = tmp_path / place / "features" / "features_resnet18"
    items = load_cohort(table, root=root)
    assert [(i["case_id"], i["label"], i["split"]) for i in items] == [
        ("a", 1, "train"), ("b", 0, "train"), ("c", 1, "train"), ("d", 0, "test")
    ]  # fmt: skip
    for item in items:
        bag = LoadBagd(["image", "instance_label"])(item)
        assert bag["image"].shape == (len(SLICES[item["case_id"]]), 18)
        assert bag["instance_label"].tolist() == SLICES[item["case_id"]]
    columns, labels, notes = study_columns(table)
    assert (labels.class_names, columns.instance_label) == (("0", "1"), "instance_label")
    assert load_cohort(table, columns, root=root) == items  # as a study reads it
    assert "6 repeated rows are not used" in notes
    assert f"labels are those of the files in 'labels' and '{of_instances}'" in notes


def test_the_encoder_is_named_where_several_have_the_bag(tmp_path):
    report = check_cohort(write_set(tmp_path))
    assert "got 2 in 'features_resnet18', 'features_resnet50'" in texts(report.errors)[0]


def test_a_bag_in_both_parts_is_only_tested(tmp_path):
    rows = [["a", "train"], ["b", "train"], ["c", "test"], ["d", "train"], ["d", "test"]]
    report = check_cohort(write_set(tmp_path, rows=rows), root=tmp_path / "features" / "features_resnet18")
    assert not report.errors
    assert [(item["case_id"], item["split"]) for item in report.items][2:] == [("c", "test"), ("d", "test")]
    assert any("1 bags are in two parts, and only tested: 'd'" in text for text in texts(report.notes))


def test_bags_without_a_file_of_labels_are_named_and_can_be_left_out(tmp_path):
    table = write_set(tmp_path)
    root = tmp_path / "features" / "features_resnet18"
    (tmp_path / "labels" / "a.npy").unlink()
    (tmp_path / "labels" / "b.npy").write_bytes(b"no array")
    np.save(tmp_path / "labels" / "c.npy", np.array([0, 1]))
    report = check_cohort(table, root=root)
    assert [item["case_id"] for item in report.items] == ["d"]
    assert any("3 bags have no file of labels that can be read: 'a', 'b', 'c'" in note for note in texts(report.notes))
    assert [item["case_id"] for item in load_cohort(table, root=root, on_bad="skip")] == ["d"]


@pytest.mark.parametrize("columns", [CohortColumns(label="grade"), CohortColumns(label=None)])
def test_labels_that_are_columns_or_not_wanted_are_not_read_from_folders(tmp_path, columns):
    rows = [[name, "train", "1"] for name in SLICES]
    write_set(tmp_path)
    table = write_table(tmp_path / "t.csv", [["bag_name", "split", "grade"], *rows])
    items = load_cohort(table, columns, root=tmp_path / "features" / "features_resnet50")
    assert [item.get("label") for item in items] == [1 if columns.label else None] * 4
    assert "instance_label" not in items[0]
