"""Tests of the notes of the report of a study."""

from dataclasses import replace

import pytest

from monai_mil_ext.apps.study.report.page.report_notes import limits, report_notes
from tests.apps.study.report.made_facts import made_facts


def test_failures_come_with_their_reasons():
    facts = made_facts(num_methods=2, sites=False)
    methods = {"ABMIL": {"failed": {"3": "ValueError: no features."}}, "QGMIL": {"failed": ["killed", "killed"]}}
    facts = replace(facts, methods=methods, summaries=dict(facts.summaries) | {"QGMIL": None})
    assert report_notes(facts) == [
        "1 run of ABMIL failed, so its values are of fewer cases (ValueError: no features).",
        "QGMIL has no result: all of its runs failed or are missing (killed).",
    ]


def test_few_cases_are_said():
    facts = made_facts(sites=False)
    facts = replace(facts, cohort=dict(facts.cohort) | {"num_cases": 24, "labels": {"benign": 20, "malignant": 4}})
    assert report_notes(facts) == [
        "There are only 24 cases: intervals are wide, and may be too narrow still.",
        "Values rest on few cases: 4 of malignant.",
    ]


def test_few_cases_of_several_labels():
    facts = made_facts("multilabel", sites=False)
    labels = {"edema": 12, "effusion": 7, "nodule": 3}
    facts = replace(facts, cohort=dict(facts.cohort) | {"labels": labels})
    assert report_notes(facts) == ["Values rest on few cases: 7 of effusion and 3 of nodule."]


def test_a_failure_that_was_noted_is_not_repeated():
    note = "ABMIL failed in fold 3: no features"
    facts = replace(made_facts(sites=False), methods={"ABMIL": {"failed": {"3": "no features"}}}, notes=[note])
    assert report_notes(facts) == [f"{note}."]


def test_notes_of_methods_are_said_once():
    facts = made_facts(num_methods=3, sites=False)
    for summary in facts.summaries.values():
        summary["notes"] = ["Every method has this."]
    facts.summaries["QGMIL"]["notes"].append("Fold 1 has one class.")
    assert report_notes(facts) == ["Every method has this.", "QGMIL: Fold 1 has one class."]


def test_limits_say_that_intervals_are_conditional():
    assert "conditional on the trained networks" in limits(made_facts())[0]
    one, external = limits(made_facts(num_methods=1)), limits(replace(made_facts(), external="Oslo"))
    assert not any("highest" in text for text in one)
    assert any("frozen" in text for text in external)


@pytest.mark.parametrize(("epochs", "noted"), [(3, True), (4, False)])
def test_a_training_that_was_too_short_is_noted(epochs, noted):
    folds = [[{"epoch": e, "train_loss": 1.0, "val_loss": 1.0 / e} for e in (1, 2, 3)]] * 2
    facts = replace(
        made_facts(num_methods=1), histories={"ABMIL": folds}, methods={"ABMIL": {"settings": {"epochs": epochs}}}
    )
    text = "The validation loss of ABMIL was lowest in the last epoch in 2 of 2 folds: more epochs may improve it."
    assert (text in report_notes(facts)) is noted


@pytest.mark.parametrize(
    ("note", "text"),
    [
        ("2 classes: 'a' (2), 'b' (1) (--class_names gives another order)", "2 classes: 'a' (2), 'b' (1)."),
        ("labels are whole numbers: if in order, --task ordinal makes use of it", "Labels are whole numbers."),
        ("'a' may be it, and none is taken: give --columns#site", "'a' may be it, and none is taken."),
        ("every case counts as its own; --columns#patient names it", "Every case counts as its own."),
        (
            "3 of 9 rows have no label: a study leaves them out (--on_bad refuse ends it)",
            "3 of 9 rows have no label: a study leaves them out.",
        ),
        ("`image` must be finite, got 3. Consider `--fill_nan lowest`.", "`image` must be finite, got 3."),
        ("mine failed in fold 1: no", "mine failed in fold 1: no."),
        ("from -3.5 to 2: a range--of values", "From -3.5 to 2: a range--of values."),
    ],
)
def test_notes_are_sentences_without_options_of_the_command_line(note, text):
    facts = replace(made_facts(num_methods=1, sites=False), notes=[note])
    assert report_notes(replace(facts, summaries={**facts.summaries, "mine": facts.summaries["ABMIL"]}))[0] == text
