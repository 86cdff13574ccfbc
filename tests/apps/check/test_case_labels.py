import pytest
import torch

from monai_mil_ext.apps.check.case_labels import read_labels
from monai_mil_ext.apps.check.check_settings import CheckedCase
from tests.apps.check.cohorts import messages


def labels(*values, **options):
    cases = [CheckedCase({"case_id": f"c{i}", "label": value}) for i, value in enumerate(values)]
    return read_labels(cases, **options), cases


@pytest.mark.parametrize(
    ("values", "kind", "names"),
    [
        (["1", "0", "1.0"], "classification", ["0", "1"]),
        ([1, 0, 2], "classification", ["0", "1", "2"]),
        (["b", "a", "b"], "classification", ["a", "b"]),
        (["mutated", "wild type"] * 2, "classification", ["wild type", "mutated"]),
        (["3", "1", "2"], "classification", ["1", "2", "3"]),
        (["0.5", "1.5", "2"], "regression", []),
        ([0.5, 1.5, 2.0], "regression", []),
        ([str(i) for i in range(30)], "regression", []),
        ([torch.tensor([1.0, 0.0]), torch.tensor([0.0, torch.nan])], "multilabel", []),
        ([["1", "0"], ["0", ""]], "multilabel", []),
    ],
)
def test_the_task_follows_from_the_labels(values, kind, names):
    found, cases = labels(*values)
    assert (found.kind, found.class_names) == (kind, names)
    assert [case.problems for case in cases] == [[]] * len(values)
    assert {len(classes) for classes in found.classes.values()} == {len(values)}


def test_times_and_events_make_survival():
    cases = [CheckedCase({"time": "3.5", "event": str(i % 2)}, f"row {i}") for i in range(4)]
    cases[0].item["time"] = "-1"
    found = read_labels(cases)
    assert (found.kind, found.classes["event"]) == ("survival", [None, "1", "0", "1"])
    assert "a time of at least 0" in messages(cases[0].problems)


def test_classes_are_named_and_may_be_given():
    found, _ = labels("1", "0", "1", class_names=["well", "ill"])
    assert found.classes == {"label": ["ill", "well", "ill"]}
    assert found.sentence == "The labels make a classification of 2 classes: well, ill."
    found, _ = labels("lung, left", "right", "lung, left")
    assert found.sentence == "The labels make a classification of 2 classes: 'lung, left', 'right'."
    _, cases = labels("ill", "healthy", class_names=["well", "ill"])
    assert "must be one of 'well', 'ill', got 'healthy'" in messages(cases[1].problems)


def test_a_missing_label_is_a_problem_of_its_case_and_one_class_of_the_cohort():
    found, cases = labels("a", "", "NA", "a")
    assert [bool(case.problems) for case in cases] == [False, True, True, False]
    assert "at least 2 classes, got 'a' in all rows" in messages(found.problems)
    assert found.sentence == "The labels do not make a task yet: see the problems."


def test_a_task_may_be_given():
    assert labels("1", "2", "3", task="regression")[0].kind == "regression"
    assert labels("0", "1", "2", task="ordinal")[0].kind == "ordinal"


def test_no_labels_make_no_task():
    found = read_labels([CheckedCase({"case_id": "a"})])
    assert (found.kind, found.classes) == ("", {})
    assert "nothing can be trained" in found.sentence


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["tumor", "normal", "unknown"], "got 'unknown', which may be either"),
        (["tumor", "normal", "Tumor"], "one spelling for each class, got 'Tumor', 'tumor'"),
        (["10", "20", "40"], "`task` must be given for whole numbers"),
    ],
)
def test_labels_that_a_study_refuses_are_a_problem(values, message):
    found, cases = labels(*values, "")
    assert message in messages(found.problems)
    assert [bool(case.problems) for case in cases] == [False, False, False, True]
    assert found.classes == {}
