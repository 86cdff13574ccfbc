"""Tests of the results of a study in words."""

import re
from dataclasses import replace

import pytest

from monai_mil_ext.apps.study.report.page.results_prose import headline, results_text
from monai_mil_ext.apps.study.report.page.study_report import write_report
from tests.apps.study.report.made_facts import made_facts
from tests.apps.study.report.page.report_page import ReportPage

NUMBER = re.compile(r"\u2212?\d+\.\d+")


def test_headline_names_the_best_method():
    facts = made_facts(num_methods=1)
    found = facts.value("ABMIL")
    assert headline(facts) == f"ABMIL: AUROC {found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
    assert headline(made_facts(num_methods=3)).startswith("Highest AUROC of three methods: ")
    assert headline(replace(facts, summaries={"ABMIL": None})).startswith("No method has a value")


def test_results_text_corrects_only_several_comparisons():
    assert "; p = 0.21)." in results_text(made_facts(num_methods=2))
    assert "; p = 0.43 after correction)." in results_text(made_facts(num_methods=3))
    assert "Of all 15 comparisons, none had a corrected p below 0.05." in results_text(made_facts(num_methods=6))


def test_results_text_names_methods_without_a_value():
    facts = made_facts(num_methods=2)
    text = results_text(replace(facts, summaries=dict(facts.summaries) | {"QGMIL": None}))
    assert "There is no value of QGMIL." in text
    failed = results_text(replace(facts, summaries={"A": None}, comparisons=(), clinical={}))
    assert failed == "The AUROC could not be computed for any method."


def test_results_text_says_what_bags_add_to_clinical_variables():
    facts = made_facts(num_methods=3)
    best, pair = facts.best, f"{facts.best} + clinical"
    rows = [*facts.comparisons, *({**facts.comparisons[0], "a": pair, "b": b} for b in ("clinical alone", best))]
    assert f"The difference in AUROC of {pair} minus clinical alone was 0.02 (95 % CI" in results_text(
        replace(facts, comparisons=rows)
    )


def test_results_text_compares_the_localization_with_the_center():
    text = results_text(made_facts(num_methods=2))
    assert re.search(r"ranked labeled instances with an AUROC of .*, the distance from the center with .*; the", text)
    assert "ranked labeled" not in results_text(made_facts(num_methods=2, localization=False))


@pytest.mark.parametrize("kind", ["classification", "multilabel", "ordinal", "regression", "survival", "cox"])
def test_numbers_of_the_text_are_those_of_the_tables(kind, tmp_path):
    facts = made_facts(kind, 3)
    page = ReportPage(write_report(facts, tmp_path).read_text())
    cells = [cell for name, table in page.tables.items() if name != "case-table" for row in table for cell in row]
    known = facts.cleaned()
    shown = {*NUMBER.findall(" ".join([*cells, *(text for text in page.texts if "log-rank" in text)]))}
    numbers = {*NUMBER.findall(results_text(known).replace("p below 0.05", ""))}
    assert len(numbers) > 8
    assert numbers <= shown
