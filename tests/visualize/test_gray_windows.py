"""Tests of the windows of gray values that a page offers."""

import pytest

from monai_mil_ext.visualize.gray_windows import gray_windows


def names(window):
    return [entry["name"].split(",")[0] for entry in gray_windows(window)]


def test_gray_windows_are_parts_of_the_stored_range():
    (_, abdomen, *_) = gray_windows("window -1000 to 400 HU")
    assert abdomen == {"name": "abdomen, -150 to 250 HU", "low": round(850 / 1400, 5), "high": round(1250 / 1400, 5)}
    first = gray_windows("window -1000 to 400 HU")[0]
    assert first == {"name": "as the network sees it", "low": 0.0, "high": 1.0}


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ("window -1000 to 400 HU", ["abdomen", "lung", "mediastinum", "subdural"]),  # bone is cut, brain has 15 values
        ("window 0 to 80 HU", ["stroke"]),  # brain is the range itself
        ("window -1000.0 to 2000.0 HU", ["abdomen", "bone", "lung", "pe"]),
    ],
)
def test_gray_windows_of_a_ct_are_presets_that_the_range_can_show(window, expected):
    assert names(window)[1:] == expected


@pytest.mark.parametrize("window", ["", "window 0 to 16", "normalization z", "window 0 to 80 HU, shown from 0 to 3"])
def test_gray_windows_without_hounsfield_units_are_parts(window):
    assert names(window) == ["as the network sees it", "dark half", "middle half", "bright half"]
