"""Tests of the paragraphs of the report of a study."""

import re
from dataclasses import replace

import pytest

from monai_mil_ext.apps.study.report.page.prose import methods_text, references
from monai_mil_ext.apps.study.report.page.results_prose import results_text
from tests.apps.study.report.made_facts import made_facts

KINDS = ("classification", "multilabel", "ordinal", "regression", "survival", "cox")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_methods", [1, 2, 6])
def test_texts_are_whole_sentences_with_numbers(kind, num_methods):
    facts = made_facts(kind, num_methods).cleaned()
    for text in (methods_text(facts), results_text(facts)):
        assert re.search(r"None|\bnan\b|\{|\}|\(\)|  |\.\.| [,.;]|_|\u2013", text) is None
        assert all(re.match(r"[A-Z0-9]", sentence) for sentence in re.split(r"(?<=[a-z)\]]\.) ", text))
        assert text.endswith(".")
    assert re.search(r"\d\.\d\d \(95 % CI .* to ", results_text(facts))


def test_methods_text_of_a_binary_task():
    text = methods_text(made_facts().cleaned())
    for part in (
        "The cohort comprised 60 cases of 55 patients from 3 sites (30 benign, 24 malignant).",
        "One further case was left out because its data could not be used.",
        "Each case was a bag of slices (median 40), each represented by the features of ResNet-50 (ImageNet).",
        "Networks were evaluated by 5-fold cross-validation by patient, stratified by label.",
        "Two methods of multiple-instance learning were compared: ABMIL [1] and QGMIL [2].",
        "settings were chosen from 3 candidates by the loss of the validation part",
        "Clinical variables (age and sex) were modeled alone by logistic regression",
        "Youden's index [3]",
        "bootstrap of 1,000 resamples by patient [4]",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("folds", "text"),
    [
        ({"by": "site", "num_folds": 3}, "leave-one-site-out cross-validation (3 folds)."),
        (
            {"num_folds": 5, "repeats": 2, "by": "spread"},
            "by 5-fold cross-validation by patient, stratified by label with sites spread evenly, repeated 2 times",
        ),
        ({"num_folds": 1}, "evaluated on one fixed test set."),
        ({"plan": "Five folds by patient."}, "evaluated by five folds by patient. In each"),
    ],
)
def test_methods_text_of_each_plan(folds, text):
    assert text in methods_text(replace(made_facts(), folds=folds))


def with_thresholds(facts, *values):
    rows = [{"fold": fold, "threshold": value} for fold, value in enumerate(values)]
    summaries = {name: {**summary, "thresholds": rows} for name, summary in facts.summaries.items()}
    return replace(facts, summaries=summaries)


def test_methods_text_says_where_no_operating_point_was_chosen():
    few, none = (with_thresholds(made_facts(), *values) for values in ((0.4, 0.5), (0.5, 0.5)))
    assert "on its validation part, and at 0.5 where that part did not allow a choice." in methods_text(few)
    assert "The operating point was a probability of 0.5, since no validation part allowed" in methods_text(none)
    assert "Youden" not in methods_text(none) + " ".join(references(none))


def test_methods_text_of_an_external_cohort_says_that_all_is_from_the_first():
    text = methods_text(replace(made_facts(num_methods=1), external="west", methods={}))
    assert "One method of multiple-instance learning was evaluated: ABMIL" in text
    assert "Operating points were fixed before, by Youden's index" in text
    assert "fitted in each training part of the first cohort" in text


def test_methods_text_states_the_training_that_methods_share():
    settings = {"epochs": 30, "patience": 8, "learning_rate": 0.001}
    facts = replace(made_facts(num_methods=1), methods={"ABMIL": {"settings": settings}})
    sentence = "trained by AdamW at a learning rate of 0.001 for at most 30 epochs, stopped 8 epochs after the lowest"
    assert sentence in methods_text(facts)
    chosen = {"ABMIL": {"settings": settings, "chosen": [{"fold": 0, "learning_rate": 0.01}]}}
    assert "trained by AdamW for at most 30 epochs" in methods_text(replace(facts, methods=chosen))
    others = {"ABMIL": {"settings": settings}, "QGMIL": {"settings": settings | {"epochs": 9}}}
    assert "AdamW" not in methods_text(replace(facts, methods=others))


def test_every_reference_is_cited_once():
    facts = made_facts("cox", 6)
    cited = {int(n) for group in re.findall(r"\[([\d, ]+)\]", methods_text(facts)) for n in group.split(",")}
    assert cited == set(range(1, len(references(facts)) + 1))
    assert len(set(references(facts))) == len(references(facts))


def test_methods_text_of_an_external_cohort():
    text = methods_text(replace(made_facts(), external="Oslo"))
    assert "Operating points were fixed before, by Youden's index [3] of the predictions of the first cohort." in text
    assert "in each training part of the first cohort, and combined" in text
    assert "the predictions of the networks of all folds were averaged." in text
    assert "trained on all of its cases" in methods_text(replace(made_facts(), external="Oslo", folds={"refit": True}))
    assert "validation part." not in text


def test_methods_text_says_how_missing_values_and_repeats_were_handled():
    facts = made_facts()
    assert "lacked a value" not in methods_text(facts)
    text = methods_text(replace(facts, clinical=dict(facts.clinical) | {"missing": {"age": 3, "sex": 1}}))
    assert "Cases lacked a value of age (3) and sex (1): missing numbers were replaced by the median" in text
    assert "means over the repeats" not in text
    for summary in facts.summaries.values():
        summary["num_repeats"] = 3
    assert "Values are means over the repeats." in methods_text(facts)


def test_methods_text_of_times():
    facts = made_facts("cox")
    cohort = dict(facts.cohort) | {"median_follow_up": 31.25}
    text = methods_text(replace(facts, cohort=cohort, folds={"num_folds": 3}))
    assert "(median follow-up 31.2, by reverse Kaplan-Meier)." in text
    assert "stratified by event" in text


def test_only_rankings_are_of_the_same_fold():
    assert "the AUROC is that of pairs of the same fold" in methods_text(made_facts())
    assert "pairs of the same fold" not in methods_text(made_facts("ordinal"))
    assert "(20 % of the patients outside" in methods_text(
        replace(made_facts(), folds={"num_folds": 5, "val_fraction": 0.2})
    )
