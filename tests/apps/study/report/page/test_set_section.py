"""Tests of the section on sets of instances with a guarantee."""

from dataclasses import replace

from monai_mil_ext.apps.study.report.page.report_sections import report_sections
from monai_mil_ext.apps.study.report.page.report_tables import csv_tables
from monai_mil_ext.apps.study.report.page.set_section import set_blocks
from tests.apps.study.report.made_facts import made_facts

ROW = {
    "confidence": 0.95,
    "num_cases": 18,
    "num_calibration": 9,
    "coverage": {"value": 0.9, "low": 0.8, "high": 0.96},
    "set_size": {"value": 13.5, "low": 9.0, "high": 20.0},
    "no_set": {"value": 0.5, "low": 0.3, "high": 0.7},
}


def facts_with_sets():
    facts = made_facts(num_methods=2, clinical=False)
    with_sets = {**facts.summaries["ABMIL"], "sets": [ROW]}
    return replace(facts, summaries={**facts.summaries, "ABMIL": with_sets})


def test_the_section_has_a_row_for_each_guarantee_and_method_with_labels():
    table, text = set_blocks(facts_with_sets().cleaned())
    assert "share of the bag" not in table["heads"]  # without any value
    assert [cell["text"] for cell in table["rows"][0]] == [
        *("ABMIL", "95 %", "18", "9", "0.90 [0.80, 0.96]", "13.5 [9.0, 20.0]", "0.50 [0.30, 0.70]")
    ]
    assert "calibrates no network" in text["text"]
    assert "sets" in [section["id"] for section in report_sections(facts_with_sets().cleaned())]


def test_the_csv_file_has_all_numbers():
    (row,) = csv_tables(facts_with_sets().cleaned())["sets"]
    assert (row["method"], row["confidence"], row["coverage"], row["coverage_low"]) == ("ABMIL", 0.95, 0.9, 0.8)


def test_there_is_no_section_without_labels_of_instances():
    assert list(set_blocks(made_facts().cleaned())) == []
    assert "sets" not in csv_tables(made_facts().cleaned())
