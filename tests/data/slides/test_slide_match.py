"""Tests of the check that features are those of a slide."""

from types import SimpleNamespace

import numpy as np
import pytest

from monai_mil_ext.data.slides.slide_match import slide_difference

COORDS = np.array([[0.0, 0.0], [900.0, 400.0]])


def slide(size=(1000, 500), mpp=0.25, magnification=40.0, bounds=None):
    bounds = (0, 0, *size) if bounds is None else bounds
    return SimpleNamespace(size=size, mpp=mpp, magnification=magnification, bounds=bounds)


@pytest.mark.parametrize(
    ("stated", "change"),
    [
        ({}, {}),
        ({"size": (1000, 500)}, {}),
        ({"mpp": 0.2531}, {}),
        ({"magnification": 40.0}, {}),
        ({"magnification": 40.0}, {"mpp": None}),
        ({"magnification": 20.0}, {"mpp": 0.31}),  # as TRIDENT rounds the resolution of scanners
        ({"magnification": 60.0}, {"mpp": 0.1999}),
        ({"magnification": 40.0, "mpp": 0.25}, {"mpp": None, "magnification": None}),
    ],
)
def test_slide_difference_is_none_for_the_slide_of_the_features(stated, change):
    assert slide_difference(slide(**change), COORDS, **stated) == ""


@pytest.mark.parametrize(
    ("stated", "change", "reason"),
    [
        ({"size": (1000, 501)}, {}, "the features are of a slide of 1000 x 501 pixels, the slide has 1000 x 500"),
        ({"size": (500, 1000)}, {}, "the features are of a slide of 500 x 1000 pixels, the slide has 1000 x 500"),
        ({"mpp": 0.5}, {}, "a pixel of the features' slide is of 0.5 um, one of the slide of 0.25 um"),
        (
            {"magnification": 20.0},
            {},
            "a pixel of the features' slide is of magnification 20, one of the slide of 0.25",
        ),
        ({"magnification": 20.0}, {"mpp": None}, "of magnification 20, one of the slide of magnification 40"),
        ({}, {"size": (900, 500)}, "1 of 2 tiles begin outside of the slide of 900 x 500 pixels"),
    ],
)
def test_slide_difference_names_what_another_slide_has(stated, change, reason):
    assert reason in slide_difference(slide(**change), COORDS, **stated)


def test_slide_difference_finds_negative_and_missing_coordinates():
    assert slide_difference(slide(), COORDS - 1).startswith("1 of 2 tiles begin outside")
    assert slide_difference(slide(), COORDS * np.nan).startswith("2 of 2 tiles begin outside")


def test_slide_difference_finds_coordinates_that_were_counted_from_the_bounds():
    """As QuPath counts, in a slide that lies in a larger plane."""
    coords = 128.0 * np.stack(np.meshgrid(range(10), range(8)), axis=-1).reshape(-1, 2)
    scanned = slide((10_000, 8_000), bounds=(6_000, 4_000, 1_280, 1_024))
    assert slide_difference(scanned, np.add(coords, (6_000, 4_000)), tile_size=128.0) == ""
    assert slide_difference(scanned, np.add(coords, (5_900, 3_900)), tile_size=128.0) == ""
    reason = "80 of 80 tiles lie outside of the scanned part of the slide"
    assert slide_difference(scanned, coords, tile_size=128.0) == reason


def test_slide_difference_is_none_for_an_empty_bag():
    assert slide_difference(slide(), COORDS[:0]) == ""
