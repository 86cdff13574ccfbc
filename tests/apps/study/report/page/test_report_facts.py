"""Tests of the facts of a study that its report shows."""

from dataclasses import replace

import numpy as np
import pytest

from monai_mil_ext.apps.study import Task
from monai_mil_ext.apps.study.report import ReportFacts
from monai_mil_ext.apps.study.report.page.report_facts import clean
from tests.apps.study.report.made_facts import made_facts


@pytest.mark.parametrize(
    ("kind", "main"), [("classification", "auroc"), ("ordinal", "kappa"), ("regression", "r2"), ("cox", "c_index")]
)
def test_main_is_the_metric_of_the_task(kind, main):
    facts = made_facts(kind)
    assert facts.main == main
    assert replace(facts, summaries={"ABMIL": None}).main == main


def test_best_is_the_method_with_the_highest_value():
    facts = made_facts(num_methods=3)
    values = {name: summary["values"]["auroc"]["value"] for name, summary in facts.summaries.items()}
    assert facts.best == max(values, key=values.get)
    assert replace(facts, summaries={"a": {"values": {"auroc": None}}, "b": None}).best == "a"
    assert replace(facts, summaries={"a": None}).best == ""


def test_metric_is_macro_only_for_several_classes():
    assert made_facts().metric("auroc") == "AUROC"
    assert made_facts("multilabel").metric("auroc") == "macro AUROC"
    assert made_facts().metric("new_metric") == "new metric"


def test_cleaned_facts_are_plain_and_without_paths():
    facts = ReportFacts("t", Task("regression"), {"num_cases": np.int64(3)}, {"a": {"x": np.float32(np.inf)}})
    cleaned = replace(facts, notes=["cannot read /data/DOE_JOHN/scan.nii, and 1/2 is no path"]).cleaned()
    assert cleaned.summaries == {"a": {"x": None}}
    assert cleaned.cohort == {"num_cases": 3}
    assert type(cleaned.cohort["num_cases"]) is int
    assert cleaned.notes == ["cannot read <path>, and 1/2 is no path"]
    assert cleaned.task is facts.task


def test_clean_keeps_texts_numbers_and_ragged_lists():
    assert clean([[1, 2.5], ["a"], None, True]) == [[1, 2.5], ["a"], None, True]
    assert clean(np.array(["x"])) == ["x"]
