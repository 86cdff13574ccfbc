"""Tests of the tables of the report of a study."""

import numpy as np

from monai_mil_ext.apps.study.report.page.report_tables import csv_tables, format_interval, format_number, format_p
from tests.apps.study.report.made_facts import made_facts


def test_a_wide_interval_keeps_the_digits_of_each_of_its_numbers():
    assert format_interval({"value": 5.0, "low": 0.21, "high": 121.4}) == "5.00 [0.21, 121]"
    assert format_interval({"value": 16108.0, "low": 0.014, "high": 1.8e10}) == "16108 [0.01, 2e+10]"
    assert format_interval({"value": 55.2, "low": 40.31, "high": 121.4}) == "55 [40, 121]"


def test_format_number_has_sensible_digits():
    values = (0.1 + 0.2, 0.0042, 1e-9, 0.0, 12.34, 1234.5, -0.004, -0.00001, True, 7)
    texts = ["0.30", "0.004", "0.00", "0.00", "12.3", "1234", "\u22120.004", "0.00", "True", "7"]
    assert [format_number(value) for value in values] == texts


def test_what_is_unknown_is_a_dash():
    for value in (None, float("nan"), float("inf"), "text"):
        assert format_number(value) == "\u2013"
    assert format_interval(None) == format_interval({"value": None, "low": 0.1, "high": 0.2}) == "\u2013"
    assert format_p(None) == "\u2013"


def test_format_interval_shares_its_digits():
    assert format_interval({"value": 0.5, "low": -0.1, "high": 0.9}) == "0.50 [\u22120.10, 0.90]"
    assert format_interval({"value": 95.0, "low": 8.5, "high": 200.0}) == "95 [8, 200]"
    assert format_interval({"value": 0.5, "low": None, "high": None}) == "0.50"
    assert format_interval({"difference": 0.02, "low": 0.0, "high": 0.1}, "difference") == "0.02 [0.00, 0.10]"


def test_csv_tables_have_all_that_the_page_shows():
    tables = csv_tables(made_facts().cleaned())
    assert {*tables} == {
        *("methods", "folds", "classes", "sites", "comparisons", "thresholds", "calibration", "curves", "cases"),
        "effects",
    }
    assert {row["input"] for row in tables["methods"]} == {"bag", "clinical", "both"}
    assert {row["curve"] for row in tables["curves"]} == {"roc", "pr"}
    assert {"name", "auroc", "auroc_low", "auroc_high"} <= tables["classes"][0].keys()
    assert {"output_ABMIL", "output_QGMIL", "error"} <= tables["cases"][0].keys()
    assert "slope" in tables["calibration"][0]


def test_csv_tables_without_classes():
    tables = csv_tables(made_facts("survival", sites=False, clinical=False).cleaned())
    assert {row["name"] for row in tables["curves"]} == {"low risk", "medium risk", "high risk"}
    assert "effects" not in tables
    assert "classes" not in tables
    assert np.isfinite([row["y"] for row in tables["curves"]]).all()
