"""Tests of the figures of the report of a study."""

import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from monai_mil_ext.apps.study import Task
from monai_mil_ext.apps.study.report.page.report_facts import clean
from monai_mil_ext.apps.study.report.page.study_figures import (
    VARIABLES,
    calibration_figure,
    curve_figure,
    forest_figure,
    history_figure,
    scatter_figure,
    short,
    survival_figure,
)
from tests.apps.study.report import made_facts as made

BINARY = Task("classification", ("no", "yes"))


def roc(rng):
    return clean(made.roc(rng))


def survival(rng):
    return clean(made.survival(rng))


def figures(name="f"):
    rng = np.random.default_rng(0)
    values = {"value": 0.8, "low": 0.7, "high": 0.9}
    found = clean(made.summary(BINARY, rng))
    yield curve_figure(name, {"A": roc(rng), "B": roc(rng)}, "roc", "ROC curves", "text")
    yield forest_figure(name, [("A", values, [0.75, None]), ("B", {"value": 0.5}, ())], "AUROC", "caption", 0.5)
    yield calibration_figure(name, found["calibration"], "A")
    yield survival_figure(name, survival(rng), "A")
    yield scatter_figure(name, {"truth": [1, 2, 3], "predicted": [1, None, 2]}, "A")
    yield history_figure(name, [made.history(rng), [], made.history(rng)], "A")


@pytest.mark.parametrize("number", range(6))
def test_figures_are_small_and_follow_the_colors_of_the_page(number):
    figure = [*figures()][number]
    svg = figure["svg"]
    ET.fromstring(svg)  # noqa: S314 - our own
    assert len(svg) < 60_000
    assert "var(--text)" in svg
    assert not [color for color in VARIABLES if f": {color}" in svg]
    assert "system-ui" in svg
    assert "DejaVu" not in svg
    assert "<text" in svg  # letters, which can be searched
    assert figure["text"]
    assert "nan" not in figure["text"] + figure["caption"]


def test_names_in_figures_are_unique():
    ids = [name for k, f in enumerate((*figures("a"), *figures("b"))) for name in re.findall(r'id="([^"]+)"', f["svg"])]
    assert {name[:2] for name in ids} == {"a-", "b-"}
    used = re.findall(r"url\(#([^)]+)\)", next(figures("a"))["svg"])
    assert used
    assert {*used} <= {*ids}


def test_names_are_no_formulas_and_no_markup():
    found = {"value": 0.8, "low": 0.7, "high": 0.9}
    svg = forest_figure("f", [("$x^", found, ()), ("<b>&", found, ()), ("_x", found, ())], "m", "c")["svg"]
    assert "$x^" in svg
    assert "&lt;b&gt;&amp;" in svg
    assert "_x" in curve_figure("f", {"_x": roc(np.random.default_rng(0))}, "roc", "c", "t")["svg"]


def test_ratios_have_plain_numbers():
    rows = [("a", {"value": 2.0, "low": 0.5, "high": 8.0}, ())]
    svg = forest_figure("f", rows, "odds ratio", "c", 1.0, ratio=True)["svg"]
    assert [text for text in ("0.5", "1", "2", "5") if f">{text}</text>" not in svg] == []
    wide = forest_figure("f", [("a", {"value": 2.0, "low": 0.02, "high": 90.0}, ())], "r", "c", 1.0, ratio=True)["svg"]
    assert [text for text in ("0.1", "1", "10") if f">{text}</text>" not in wide] == []
    assert ">3</text>" not in wide


def test_texts_have_the_numbers():
    rng = np.random.default_rng(0)
    assert forest_figure("f", [("A", {"value": 0.8, "low": 0.7, "high": 0.9}, ())], "AUROC", "c")["text"] == (
        "AUROC, values with 95 % intervals: A 0.80 [0.70, 0.90]."
    )
    assert survival_figure("f", survival(rng), "A")["caption"] == (
        "A: log-rank p < 0.001; hazard ratio 1.90 [1.30, 2.70] per SD of the risk"
    )
    folds = [[{"epoch": e, "val_loss": v} for e, v in enumerate((3.0, 1.0, 1.0, 2.0))]]
    assert history_figure("f", folds, "A")["text"].endswith("lowest validation loss: 2.")


def test_many_points_are_pixels():
    x = np.arange(2000.0)
    assert len(scatter_figure("f", {"truth": x, "predicted": x}, "A")["svg"]) < 150_000


def test_short_cuts_long_names():
    assert short("a\n b") == "a b"
    assert len(short("x" * 99)) == 26
