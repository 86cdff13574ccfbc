"""Tests of the report of a cohort check."""

import csv
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
    CohortReport("c.csv", 3, ITEMS, skipped=[SKIPPED]).raise_if_errors()


def test_cohort_report_write_has_counts_and_issues(tmp_path):
    CohortReport("c.csv", 5, ITEMS, [Issue("row 3", "bad")], [SKIPPED]).write(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text()) == {
        "name": "c.csv",
        "rows": 5,
        "items": 3,
        "errors": [{"location": "row 3", "message": "bad", "case": ""}],
        "skipped": [SKIPPED._asdict()],
        "notes": [],
    }


def faulty():
    """Return a report of six rows: four errors of three cases, and three valid items."""
    errors = [
        Issue("row 2, 'a'", "no patient", "a"),
        Issue("row 2, 'a'", "no label", "a"),
        Issue("row 5", "no bag", "row 5"),
        Issue("scan 3", "no file", "c"),
    ]
    return CohortReport("c.csv", 6, list(ITEMS), errors)


def test_cohort_report_refuses_all_bad_cases_in_one_error(tmp_path):
    with pytest.raises(ValueError, match="must be a valid cohort, got 4 errors:") as error:
        faulty().usable_items(output_dir=tmp_path)
    assert all(str(issue) in str(error.value) for issue in faulty().errors)
    assert str(error.value).endswith('leave these cases out with `on_bad` "skip".')
    assert not list(tmp_path.iterdir())


def test_cohort_report_skips_bad_cases_and_lists_them(tmp_path, caplog):
    report = faulty()
    assert report.usable_items("skip", tmp_path) == ITEMS
    assert report.errors == []
    assert caplog.messages[0].splitlines() == [
        "c.csv: left out 3 of 6 cases:",
        "  row 2, 'a': no patient",
        "  row 2, 'a': no label",
        "  row 5: no bag",
        "  scan 3: no file",
    ]
    with (tmp_path / "left_out.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["case", "reason"],
            ["a", "no patient; no label"],
            ["row 5", "no bag"],
            ["c", "no file"],
        ]


@pytest.mark.parametrize("on_bad", ["refuse", "skip"])
def test_cohort_report_removes_the_list_of_an_earlier_run(tmp_path, on_bad):
    faulty().usable_items("skip", tmp_path)
    CohortReport("c.csv", 3, ITEMS).usable_items(on_bad, tmp_path)
    assert not (tmp_path / "left_out.csv").exists()


def test_cohort_report_refuses_errors_of_the_whole_cohort_and_an_empty_rest(tmp_path):
    report = faulty()
    report.errors.append(Issue("encoder", "encoder must be the same in all files"))
    with pytest.raises(ValueError, match=r"got 1 error:\n  encoder: encoder must be the same in all files$"):
        report.usable_items("skip", tmp_path)
    with pytest.raises(ValueError, match="must have at least one usable bag, got 4 skipped:"):
        CohortReport("c.csv", 3, errors=faulty().errors).usable_items("skip", tmp_path)
    with pytest.raises(ValueError, match="`on_bad` must be one of 'refuse', 'skip', got 'drop'"):
        CohortReport("c.csv", 3, ITEMS).usable_items("drop")
    assert not list(tmp_path.iterdir())


def test_cohort_report_logs_notes_on_properties_only(caplog):
    notes = [Issue("", "unused columns"), Issue("resolution", "resolution is not the same")]
    CohortReport("c.csv", 3, ITEMS, notes=notes).usable_items()
    assert caplog.messages == ["c.csv: resolution: resolution is not the same"]
