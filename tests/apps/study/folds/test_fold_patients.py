"""Tests of the patients of a study and their strata."""

import pytest

from monai_mil_ext.apps.study import Task
from monai_mil_ext.apps.study.folds.fold_patients import class_names, describe_patients, limit_folds

BINARY = Task("classification", ("benign", "malignant"))


def item(case, patient, label, **more):
    return {"case_id": case, "patient": patient, "label": label, **more}


def test_a_patient_has_the_rarest_of_its_classes_and_the_site_of_most_cases():
    items = [item(f"c{i}", f"p{i}", 0, site="A") for i in range(5)]
    items += [item("y", "q", 1, site="B"), item("x", "q", 0, site="A"), item("z", "q", 0, site="B")]
    patient = describe_patients(items, BINARY, 5)[-1]
    assert patient.cases == ("x", "y", "z")
    assert (patient.label, patient.detail, patient.site) == ("malignant", "benign+malignant", "B")
    assert patient.sites == {"A", "B"}


def test_classes_of_several_labels_have_both_values_and_skip_unknown_ones():
    task = Task("multilabel", ("a", "b+c"))
    items = [item("x", "x", [1.0, float("nan")]), item("y", "y", [0.0, 1.0]), item("z", "z", [float("nan")] * 2)]
    assert class_names(items, task) == [{"a"}, {"no a", "b+c"}, frozenset()]
    assert [patient.label for patient in describe_patients(items, task, 5)] == ["a", "b+c", ""]


def test_bins_of_a_regression_keep_equal_values_together():
    items = [item(f"c{i}", f"p{i}", float(i >= 30)) for i in range(40)]
    bins = {patient.detail for patient in describe_patients(items, Task("regression"), 5)}
    assert len(bins) == 2
    few = describe_patients(items[:9], Task("regression"), 5)
    assert {patient.detail for patient in few} == {""}


def test_each_label_limits_the_folds_by_its_rarer_value():
    task = Task("multilabel", ("a", "b"))
    items = [item(f"c{i}", f"p{i}", [float(i > 3), float(i % 2)]) for i in range(20)]
    assert limit_folds(describe_patients(items, task, 5), task, 5) == 4
    items = [item(f"c{i}", f"p{i}", [float(i > 0), float(i % 2)]) for i in range(20)]
    assert limit_folds(describe_patients(items, task, 5), task, 5) == 5
    few = describe_patients([item(f"c{i}", f"p{i}", [1.0, float(i > 0)]) for i in range(20)], task, 5)
    with pytest.raises(ValueError, match=r"2 patients with each value of a label, .* got 20 in all, 0 of a, 1 of b"):
        limit_folds(few, task, 5)
