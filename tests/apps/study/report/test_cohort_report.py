"""Tests of the report of a cohort."""

import numpy as np

from monai_mil_ext.apps.study.report.cohort_report import CohortResults, compared_predictions, read_left_out
from tests.apps.study.cohort_bags import TASKS, predictions_of


def test_comparisons_ask_what_bags_and_clinical_variables_add():
    items, truth = [{"case_id": str(i)} for i in range(6)], np.array([0, 0, 0, 1, 1, 1])
    bags = {name: predictions_of(np.linspace(0, 1, 6), truth) for name in ("A", "B")}
    assert compared_predictions(CohortResults(TASKS["classification"], items, bags))[1] == [("A", "B")]
    clinical = {name: {"clinical": bags[name], "both": bags[name]} for name in bags}
    compared, pairs = compared_predictions(CohortResults(TASKS["classification"], items, bags, clinical))
    assert list(compared) == ["A", "B", "clinical alone", "A + clinical", "B + clinical"]
    assert pairs == [
        ("A", "B"),
        *((f"{name} + clinical", other) for name in ("A", "B") for other in ("clinical alone", name)),
    ]


def test_a_cohort_without_a_list_has_no_cases_left_out(tmp_path):
    assert read_left_out(tmp_path) == []
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "left_out.csv").write_text("case,reason\na,damaged\n")
    assert read_left_out(tmp_path) == [{"case_id": "a", "reason": "damaged"}]
