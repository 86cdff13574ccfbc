"""Tests of the task of a study, found from the labels of its table."""

import pytest

from monai_mil_ext.data import CohortColumns, StudyLabels, load_cohort, study_columns
from tests.data.cohort_files import write_bags, write_table


def table_of(folder, header, *rows):
    lines = [["case_id", "image", *header], *([f"c{i}", f"b{i}.h5", *row] for i, row in enumerate(rows))]
    return write_table(folder / "cohort.csv", lines)


def found(folder, header, *rows, **options):
    return study_columns(table_of(folder, header, *rows), **options)


def test_the_columns_serve_load_cohort(tmp_path):
    write_bags(tmp_path, {f"b{i}": 2 for i in range(3)})
    table = table_of(tmp_path, ["Diagnosis"], ["tumor"], ["normal"], [""])
    columns, labels, notes = study_columns(table, CohortColumns(label="diagnosis"))
    assert labels == StudyLabels("classification", ("normal", "tumor"))
    assert notes[-1] == "1 of 3 rows have no label: a study leaves them out (--on_bad refuse ends it)"
    items = load_cohort(table, columns, on_bad="skip")
    assert [(item["case_id"], item["label"]) for item in items] == [("c0", 1), ("c1", 0)]
    with pytest.raises(ValueError, match="`label` must be one of 'normal', 'tumor', got an empty cell"):
        load_cohort(table, columns)


def test_several_columns_are_several_labels(tmp_path):
    write_bags(tmp_path, {"b0": 2, "b1": 2})
    table = table_of(tmp_path, ["er", "PR"], ["1", ""], ["0", "1"])
    columns, labels, _ = study_columns(table, CohortColumns(label=["ER", "PR"]))
    assert labels == StudyLabels("multilabel", ("er", "PR"))
    assert load_cohort(table, columns)[1]["label"].tolist() == [0, 1]
    named = study_columns(table, CohortColumns(label=["ER", "PR"]), class_names=["estrogen", "progesterone"])[1]
    assert named.class_names == ("estrogen", "progesterone")


def test_numbers_are_a_regression(tmp_path):
    write_bags(tmp_path, {"b0": 2, "b1": 2})
    table = table_of(tmp_path, ["label"], ["0.5"], ["2"])
    columns, labels, _ = study_columns(table)
    assert labels == StudyLabels("regression")
    assert [item["label"] for item in load_cohort(table, columns)] == [0.5, 2.0]


@pytest.mark.parametrize(
    "header", [["time", "event"], ["OS_MONTHS", "OS_STATUS"], ["OS.time", "OS"], ["survival_months", "dead"]]
)
def test_times_and_events_by_their_names(tmp_path, header):
    write_bags(tmp_path, {"b0": 2, "b1": 2, "b2": 2})
    table = table_of(tmp_path, header, ["3.5", "1"], ["7", "0:LIVING"], ["2", "True"])
    columns, labels, _ = study_columns(table)
    assert (columns.time, columns.event, columns.label, labels.kind) == (*header, None, "survival")
    assert [(item["time"], item["event"]) for item in load_cohort(table, columns)] == [(3.5, 1), (7, 0), (2, 1)]
    assert study_columns(table, task="cox")[1] == StudyLabels("cox")


def test_a_label_comes_before_times_unless_the_task_is_survival(tmp_path):
    header, rows = ["label", "time", "event"], [["0", "1", "1"], ["1", "2", "0"]]
    columns, labels, notes = found(tmp_path, header, *rows)
    assert (labels.kind, columns.time) == ("classification", None)
    assert "columns 'time' and 'event' are not used: --task survival takes them" in notes
    columns, labels, _ = found(tmp_path, header, *rows, task="survival")
    assert (labels.kind, columns.time, columns.event, columns.label) == ("survival", "time", "event", None)


def test_what_cannot_be_decided_names_the_option(tmp_path):
    with pytest.raises(ValueError, match=r"must be named by --columns#label LABEL, or --columns#time TIME .* 'grade'"):
        found(tmp_path, ["grade"], ["1"])
    with pytest.raises(ValueError, match="got 'os_time' with 'os_event', 'pfs_time' with 'pfs_event'"):
        found(tmp_path, ["os_time", "os_event", "pfs_time", "pfs_event"], ["1", "1", "1", "1"])
    with pytest.raises(ValueError, match="In 'censorship', 1 is a censored case"):
        found(tmp_path, ["survival_months", "censorship"], ["1", "1"])
    with pytest.raises(ValueError, match="column 'grade' must exist"):
        found(tmp_path, ["label"], ["1"], columns=CohortColumns(label="grade"))
    with pytest.raises(ValueError, match="`task` must be multilabel for several columns of labels, got 'ordinal'"):
        found(tmp_path, ["a", "b"], ["1", "1"], columns=CohortColumns(label=["a", "b"]), task="ordinal")
    with pytest.raises(ValueError, match=r"`task` must be classification or .* for the one column 'label', got 'multi"):
        found(tmp_path, ["label"], ["1"], task="multilabel")
    with pytest.raises(ValueError, match=r"`class_names` must have a name for each of 2 columns, got \['x'\]"):
        found(tmp_path, ["a", "b"], ["1", "1"], columns=CohortColumns(label=["a", "b"]), class_names=["x"])
    with pytest.raises(ValueError, match="`task` must be"):
        found(tmp_path, ["label"], ["1"], task="segmentation")


def test_a_class_may_be_called_none(tmp_path):
    write_bags(tmp_path, {"b0": 2, "b1": 2})
    table = table_of(tmp_path, ["label"], ["none"], ["mild"])
    columns, _, notes = study_columns(table, class_names=["none", "mild"])
    assert [item["label"] for item in load_cohort(table, columns)] == [0, 1]
    assert not any("have no label" in note for note in notes)


def test_classes_of_the_columns_count_as_given(tmp_path):
    columns, labels, _ = found(tmp_path, ["label"], ["b"], ["a"], columns=CohortColumns(classes=["b", "a"]))
    assert labels.class_names == ("b", "a")
    assert columns.num_classes == 2


def test_a_label_that_is_named_but_missing_is_no_survival(tmp_path):
    table = table_of(tmp_path, ["time", "event"], ["3", "1"], ["4", "0"])
    assert study_columns(table)[1].kind == "survival"
    with pytest.raises(ValueError, match="column 'grade' must exist"):
        study_columns(table, CohortColumns(label="grade"))


def test_several_labels_may_be_separated_by_commas(tmp_path):
    table = table_of(tmp_path, ["ER", "PR", "time", "event"], ["1", "0", "3", "1"], ["0", "1", "4", "0"])
    columns, labels, _ = study_columns(table, CohortColumns(label="er, PR"))
    assert (columns.label, labels.kind) == (["ER", "PR"], "multilabel")
