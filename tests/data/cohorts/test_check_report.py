"""Tests of the report of a cohort check."""

import json

import pytest

from monai_mil_ext.data.cohorts.check_report import CohortReport, Issue

ITEMS = [{"patient": "p"}, {"patient": "p"}, {"patient": "q"}]
SKIPPED = Issue("row 4, 'e'", "a bag must have an instance, got none")


def test_cohort_report_as_text():
    report = CohortReport("c.csv", 5, ITEMS, [Issue("", "no column")], [SKIPPED], [Issue("row 2", "odd")] * 2)
    assert str(report).splitlines() == [
        "c.csv: 5 rows, 3 valid items of 2 patients",
        "1 error:",
        "  no column",
        "1 skipped:",
        "  row 4, 'e': a bag must have an instance, got none",
        "2 notes:",
        "  row 2: odd",
        "  row 2: odd",
    ]
    assert str(CohortReport("c.csv", 1, ITEMS[:1])) == "c.csv: 1 row, 1 valid item of 1 patient"


def test_cohort_report_raise_if_errors():
    CohortReport("c.csv", 3, ITEMS, notes=[Issue("", "fine")]).raise_if_errors()
    with pytest.raises(ValueError, match=r"^c.csv must be a valid cohort, got 1 error:\n  row 3: bad$"):
        CohortReport("c.csv", 3, ITEMS, [Issue("row 3", "bad")]).raise_if_errors()
    with pytest.raises(ValueError, match=r"^c.csv must have at least one usable bag, got 1 skipped:\n  row 4, 'e': "):
        CohortReport("c.csv", 1, skipped=[SKIPPED]).raise_if_errors()
    with pytest.warns(UserWarning, match=r"^c.csv: 1 skipped:\n  row 4, 'e': a bag"):
        CohortReport("c.csv", 3, ITEMS, skipped=[SKIPPED]).raise_if_errors()


def test_cohort_report_write_has_counts_and_issues(tmp_path):
    CohortReport("c.csv", 5, ITEMS, [Issue("row 3", "bad")], [SKIPPED]).write(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text()) == {
        "name": "c.csv",
        "rows": 5,
        "items": 3,
        "errors": [{"location": "row 3", "message": "bad"}],
        "skipped": [SKIPPED._asdict()],
        "notes": [],
    }
