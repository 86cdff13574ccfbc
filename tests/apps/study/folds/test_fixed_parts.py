"""Tests of the fixed parts of a study."""

import pytest

from monai_mil_ext.apps.study.folds.fixed_parts import column_parts, file_parts, has_column
from monai_mil_ext.data import CohortSplits


def cohort(*parts):
    return [{"case_id": f"c{i}", "patient": f"p{i}", "split": part} for i, part in enumerate(parts)]


def test_cases_without_a_split_have_no_fixed_parts():
    assert not has_column([{"case_id": "a"}, *cohort("", " ", None)])
    assert has_column(cohort("", "test"))


def test_many_cases_without_a_part_are_counted():
    items = cohort("train", "test", *[""] * 7)
    match = "got 7 cases without a `split`: 'c2', 'c3', 'c4', 'c5', 'c6' and 2 more. --on_bad skip goes on"
    with pytest.raises(ValueError, match=match):
        column_parts(items, "refuse")
    assert column_parts(items, "skip") == [{"train": ["c0"], "val": [], "test": ["c1"]}]


def test_cases_that_the_file_does_not_name_are_refused_even_if_it_knows_their_patients(tmp_path):
    items = cohort("", "", "", "")
    folds = [{"train": ["c0"], "val": ["c1"], "test": ["c2"]}]
    CohortSplits(folds, {item["case_id"]: item["patient"] for item in items}).write(tmp_path / "s.json")
    with pytest.raises(ValueError, match="got 1 cases of the cohort that are in no part: 'c3'"):
        file_parts(tmp_path / "s.json", items, "refuse")
    assert file_parts(tmp_path / "s.json", items, "skip") == folds
