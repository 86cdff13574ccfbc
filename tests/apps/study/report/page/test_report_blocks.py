"""Tests of the blocks of the page of a study."""

from dataclasses import replace

from monai_mil_ext.apps.study.report.page.report_blocks import method_rows, page_table
from tests.apps.study.report.made_facts import made_facts


def test_page_table_leaves_out_empty_columns_and_explains_dashes():
    rows = [
        {"name": "a", "x": {"value": 0.5, "low": 0.4, "high": 0.6}, "p": 0.0001, "empty": None},
        {"name": "b", "x": {"value": None, "reason": "one class only"}, "p": None, "empty": {"value": None}},
    ]
    table = page_table(rows, {"name": "name", "x": "X", "p": "p", "empty": "none"}, "caption", "too few cases")
    assert table["heads"] == ["name", "X", "p"]
    assert [cell["text"] for cell in table["rows"][0]] == ["a", "0.50 [0.40, 0.60]", "< 0.001"]
    assert [(cell["text"], cell["reason"]) for cell in table["rows"][1][1:]] == [
        ("\u2013", "one class only"),
        ("\u2013", "too few cases"),
    ]


def test_rows_of_methods_say_why_values_are_missing():
    facts = made_facts(num_methods=3)
    summaries = dict(facts.summaries) | {"QGMIL": None}
    summaries["ABMIL"]["notes"] = ["Fold 2 has one class."]
    reasons = [row["_reason"] for row in method_rows(replace(facts, summaries=summaries))]
    assert reasons == [
        "Fold 2 has one class.",
        "all runs of this method failed or are missing",
        "not computable from these predictions",
    ]
