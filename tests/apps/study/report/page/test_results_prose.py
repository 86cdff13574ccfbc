"""Tests of the results of a study in words."""

from dataclasses import replace

from monai_mil_ext.apps.study.report.page.results_prose import headline, results_text
from tests.apps.study.report.made_facts import made_facts


def test_headline_names_the_best_method():
    facts = made_facts(num_methods=1)
    found = facts.value("ABMIL")
    assert headline(facts) == f"ABMIL: AUROC {found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
    assert headline(made_facts(num_methods=3)).startswith("Highest AUROC of three methods: ")
    assert headline(replace(facts, summaries={"ABMIL": None})).startswith("No method has a value")


def test_results_text_corrects_only_several_comparisons():
    assert "p = 0.21." in results_text(made_facts(num_methods=2))
    assert "p = 0.43 after correction." in results_text(made_facts(num_methods=3))
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
    assert f"{pair} minus clinical alone: difference in AUROC" in results_text(replace(facts, comparisons=rows))
