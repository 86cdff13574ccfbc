"""Tests of the section on the cohort."""

from dataclasses import replace

from monai_mil_ext.apps.study.report.page.cohort_section import cohort_blocks
from tests.apps.study.report.made_facts import made_facts


def tables(facts):
    return {block["caption"]: block for block in cohort_blocks(facts.cleaned())}


def rows_of(block):
    return [[cell["text"] for cell in row] for row in block["rows"]]


def with_cohort(**more):
    facts = made_facts()
    return replace(facts, cohort={**facts.cohort, **more})


def test_the_flow_counts_cases_given_left_out_and_analyzed():
    left = [{"case_id": f"x{i}", "reason": "it is damaged" if i < 3 else "no label; --on_bad skip"} for i in range(5)]
    found = tables(with_cohort(left_out=left))
    rows = rows_of(found["Flow of cases"])
    assert [row[:2] for row in rows] == [
        ["given", "65"],
        ["left out: It is damaged", "3"],
        ["left out: No label", "2"],
        ["analyzed", "60"],
    ]
    assert rows[-1][2] == "55"
    assert rows_of(found["Cases left out"])[4] == ["x4", "No label."]
    rows = rows_of(tables(with_cohort(left_out=4))["Flow of cases"])
    assert [row[:2] for row in rows] == [["given", "64"], ["left out", "4"], ["analyzed", "60"]]


def test_folds_have_the_labels_of_each_part():
    count = {"fold": 0, "repeat": 0, "train": 38, "val": 10, "test": 12}
    labels = {f"{part}_labels": {"benign": n, "malignant": m} for part, n, m in (("train", 30, 8), ("val", 10, 0))}
    facts = replace(made_facts(), folds={"counts": [{**count, **labels, "test_labels": {"benign": 12}}]})
    found = tables(facts)["Cases of each fold; in parentheses benign / malignant"]
    assert rows_of(found) == [["0", "38 (30 / 8)", "10 (10 / 0)", "12 (12 / 0)"]]
    assert found["heads"] == ["fold", "training", "validation", "test"]
    assert rows_of(tables(made_facts())["Cases of each fold"])[0] == ["0", "38", "10", "12"]


def test_a_cohort_of_which_nothing_is_known_has_no_tables():
    assert [*cohort_blocks(replace(made_facts(), cohort={}, folds={}))] == []
