"""Tests of the sections of the report of a study."""

from dataclasses import replace
from functools import cache

import pytest

from monai_mil_ext.apps.study.report.page.report_sections import report_sections
from tests.apps.study.report.made_facts import made_facts

ALWAYS = ["methods", "comparisons"]
LAST = ["learning", "attention"]


@cache
def of(**options):
    return sections(made_facts(**options))


def sections(facts):
    return {section["id"]: section["blocks"] for section in report_sections(facts.cleaned())}


def tables(blocks):
    return {block["caption"]: block for block in blocks if block["kind"] == "table"}


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("classification", ["curves", "operating", "calibration", "classes", "sites", "clinical"]),
        ("multilabel", ["curves", "operating", "calibration", "classes", "sites", "clinical"]),
        ("ordinal", ["curves", "operating", "calibration", "classes", "sites", "clinical"]),
        ("regression", ["scatter", "sites", "clinical"]),
        ("survival", ["survival", "sites", "clinical"]),
    ],
)
def test_sections_are_those_of_the_task(kind, own):
    assert [*of(kind=kind)] == [*ALWAYS, *own, *LAST]


def test_sections_without_content_are_left_out():
    found = sections(made_facts(num_methods=1, sites=False, clinical=False, localization=False))
    assert not {"comparisons", "sites", "clinical"} & {*found}
    assert [*tables(found["attention"])] == ["Attention: means over the cases with 95 % intervals"]


def test_localization_stands_beside_the_center_prior():
    found = tables(of(kind="classification")["attention"])
    (table,) = (block for caption, block in found.items() if caption.startswith("Localization"))
    assert table["heads"] == ["method", "AUROC of instances", "AUROC of the center prior", "difference"]


def test_comparisons_have_corrected_values_only_if_there_are_several():
    (one,) = tables(of(kind="classification")["comparisons"]).values()
    (several,) = tables(of(num_methods=3, clinical=False, sites=False)["comparisons"]).values()
    assert one["heads"] == ["methods", "metric", "difference", "p"]
    assert several["heads"] == [*one["heads"], "p (Holm)"]


def test_curves_have_bands_only_if_they_can_be_told_apart():
    svg = [of(num_methods=n, clinical=False, sites=False)["curves"][0]["figures"][0]["svg"] for n in (2, 6)]
    assert ["FillBetween" in text for text in svg] == [True, False]


def test_several_labels_have_a_matrix_each():
    (block,) = (b for b in of(kind="multilabel")["operating"] if b["kind"] == "confusion")
    assert [table["caption"] for table in block["tables"]][:2] == ["ABMIL: edema", "ABMIL: effusion"]
    cells = block["tables"][0]["rows"][0]
    assert cells == [{"count": "30", "share": 83}, {"count": "6", "share": 17}]


def test_an_empty_row_of_a_confusion_matrix_has_no_share():
    facts = made_facts(num_methods=1)
    facts.summaries["ABMIL"]["confusion"] = [[0, 0], [1, 2.5]]
    (block,) = (b for b in sections(facts)["operating"] if b["kind"] == "confusion")
    assert block["tables"][0]["rows"] == [
        [{"count": "0", "share": 0}] * 2,
        [{"count": "1", "share": 29}, {"count": "2.50", "share": 71}],
    ]


def test_numbers_at_risk_follow_the_curves():
    found = tables(of(kind="cox", num_methods=1)["survival"])
    table = found["Numbers at risk by time, ABMIL"]
    assert table["heads"] == ["group", "0", "12", "24", "36", "48", "60"]
    assert [cell["text"] for cell in table["rows"][0]][:2] == ["low risk", "30"]


def test_chosen_settings_are_counted():
    facts = made_facts(num_methods=1)
    chosen = [{"fold": k, "learning_rate": 1e-3 if k else 1e-4} for k in range(3)]
    table = tables(sections(replace(facts, methods={"ABMIL": {"chosen": chosen}}))["methods"])["Networks and settings"]
    assert table["rows"][0][1]["text"] == "learning rate 0.0001 (1 fold); learning rate 0.001 (2 folds)"


def test_settings_that_are_not_set_are_left_out():
    methods = {"ABMIL": {"settings": {"batch_size": None, "learning_rate": 1e-4}}}
    table = tables(sections(replace(made_facts(num_methods=1, clinical=False), methods=methods))["methods"])[
        "Networks and settings"
    ]
    assert [cell["text"] for cell in table["rows"][0]] == ["ABMIL", "learning rate 0.0001"]


def test_boundaries_of_ordered_classes():
    facts = made_facts("ordinal", 1)
    facts.summaries["ABMIL"]["boundaries"] = [{"name": "above grade 1", "auroc": {"value": 0.9, "low": 0.8, "high": 1}}]
    assert "Boundaries of ordered classes" in tables(sections(facts)["classes"])
