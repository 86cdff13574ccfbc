"""Tests of the section on clinical variables."""

from dataclasses import replace

from monai_mil_ext.apps.study.report.page.clinical_section import clinical_blocks
from tests.apps.study.report.made_facts import made_facts


def blocks(facts):
    found = list(clinical_blocks(facts.cleaned()))
    return {block["caption"]: block for block in found if block["kind"] == "table"}, found


def test_bag_clinical_and_both_stand_beside_each_other():
    tables, found = blocks(made_facts(num_methods=1))
    rows = tables["Bag, clinical variables and both, with 95 % intervals"]["rows"]
    assert [row[1]["text"] for row in rows] == ["bag alone", "clinical alone", "both"]
    (figures,) = (block["figures"] for block in found if block["kind"] == "figures")
    assert [figure["name"] for figure in figures] == ["sources", "effects-univariable", "effects-multivariable"]


def test_effects_name_their_outcome_and_why_one_is_missing():
    facts = made_facts(num_methods=1)
    rows = [
        {"name": "age", "outcome": "edema", "model": "univariable", "ratio": 1.4, "low": 1.1, "high": 1.8, "p": 0.01},
        {"name": "age", "outcome": "nodule", "model": "univariable", "ratio": None, "note": "separation"},
    ]
    tables, _ = blocks(replace(facts, clinical={"effects": rows}))
    table = tables["Effects of the variables with 95 % intervals"]
    assert table["heads"] == ["variable", "outcome", "model", "odds ratio", "p", "note"]
    assert table["rows"][1][3]["reason"] == "separation"


def test_nothing_without_clinical_variables():
    assert blocks(made_facts(clinical=False))[1] == []
