from monai_mil_ext.apps.check.check_settings import Problem
from monai_mil_ext.apps.check.check_text import check_text


def text(rows=(), problems=(), notes=(), counts=(), sentences=()):
    return check_text("3 cases", rows, problems, notes, counts, sentences, 40)


def test_columns_that_are_empty_everywhere_are_left_out():
    rows = [{"case_id": "a", "patient": "p", "shape": [5, 4], "site": None, "encoded": False, "status": "ok"}]
    assert text(rows).splitlines()[2:] == ["case  patient  size   encoded  status", "a     p        5 x 4  no       ok"]


def test_one_problem_of_many_cases_is_one_line_with_its_option():
    problems = [Problem("`image` must be a CT", f"c{i}", "--normalization percentile") for i in range(7)]
    assert text(problems=problems).splitlines()[2:] == [
        "7 problems:",
        "  c0, c1, c2, c3, c4 and 2 more: `image` must be a CT. Consider `--normalization percentile`.",
        "Correct the cohort, or leave these cases out with `--on_bad skip`.",
    ]


def test_a_problem_of_the_cohort_is_not_left_out_with_a_case():
    assert "on_bad" not in text(problems=[Problem("two encoders"), Problem("lost", "a")])


def test_counts_and_sentences_follow():
    counts = [{"label": "label", "value": "0", "site": "", "patients": 3, "cases": 4}]
    lines = text(notes=[Problem("old")], counts=counts, sentences=["Done.", ""]).splitlines()
    assert lines[2:] == [
        "1 note:",
        "  old",
        "",
        "label  value  patients  cases",
        "label  0      3         4",
        "",
        "Done.",
    ]


def test_many_values_against_one_rule_do_not_fill_the_terminal():
    problems = [Problem(f"`case_id` must be letters, got '../{i}'", f"row {i}") for i in range(3000)]
    lines = text(problems=[*problems, Problem("two encoders")]).splitlines()[2:]
    assert lines[:2] == ["3001 problems:", "  row 0: `case_id` must be letters, got '../0'"]
    assert lines[10:] == [
        "  row 9: `case_id` must be letters, got '../9'",
        "  ... and 2990 more: `case_id` must be letters",
        "  two encoders",
    ]
