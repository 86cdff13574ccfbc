"""Tests of the sets of slices with a guarantee on the answers of the benchmark."""

import pytest

from tests.experiments.lesions.rows import slice_rows

NAMES = ("center", "ABMIL", "WindowMIL")


def test_only_scans_with_a_lesion_are_cases():
    from experiments.lesions.sets import labeled_cases

    scores, labels = labeled_cases(slice_rows(1))
    assert len(scores) == len(labels) == 40
    assert all(y.any() and len(y) == len(s) == 30 for s, y in zip(scores, labels, strict=True))


def test_smaller_sets_are_told_with_their_coverage_and_an_interval():
    from experiments.lesions.sets import HEADS, set_rows

    made = dict(zip(NAMES, map(slice_rows, (0, 0.5, 4)), strict=True))
    rows = {row["name"]: row for row in set_rows(made, splits=40, num_samples=100)}
    assert list(rows) == list(NAMES)
    window, flat = rows["WindowMIL"], rows["ABMIL"]
    assert set(window["values"]) <= set(HEADS)
    assert window["values"]["coverage_90"] >= window["bands"]["90"][0]
    assert window["values"]["size_90"] < flat["values"]["size_90"]
    low, high = window["interval_95"]["ratio_ABMIL_90"]
    assert 1 < low <= window["values"]["ratio_ABMIL_90"] <= high
    assert "ratio_ABMIL_90" not in flat["values"]


def test_a_shift_is_reported_for_the_method_that_it_concerns():
    from experiments.lesions.sets import shift_rows

    calibration = {"ABMIL": slice_rows(0), "WindowMIL": slice_rows(4)}
    other = {"ABMIL": slice_rows(0, seed=3), "WindowMIL": slice_rows(0, seed=3)}
    flat, window = shift_rows(calibration, {"another head": other}, splits=40)
    assert (flat["name"], window["name"]) == ("another head: ABMIL", "another head: WindowMIL")
    assert window["values"]["shifted_any"] > 0.9 > flat["values"]["shifted_any"]
    assert window["values"]["coverage_any"] == pytest.approx(0.3, abs=0.25)
