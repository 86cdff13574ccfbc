"""Tests of TileGrid: coordinates of tiles."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_mil_ext.data import SlideFileError, TileGrid


def slide(width, height, mpp=0.5, magnification=20.0):
    facts = {"size": (width, height), "bounds": (0, 0, width, height), "error": SlideFileError}
    return SimpleNamespace(mpp=mpp, magnification=magnification, **facts)


def test_tile_grid_corners_are_sorted_by_row():
    corners = TileGrid(100).corners(slide(300, 250))
    assert corners.tolist() == [[0, 0], [100, 0], [200, 0], [0, 100], [100, 100], [200, 100]]
    assert corners.dtype == np.int64


def test_tile_grid_begins_at_the_bounds_of_a_slide():
    scanned = slide(10_000, 8_000)
    scanned.bounds = (6_005, 4_003, 250, 250)
    assert TileGrid(100).corners(scanned).tolist() == [[6_005, 4_003], [6_105, 4_003], [6_005, 4_103], [6_105, 4_103]]
    inside = TileGrid(100, edge="shift").corners(scanned) - (6_005, 4_003)
    assert (inside.min(), inside.max()) == (0, 150)


@pytest.mark.parametrize(("edge", "rows"), [("drop", [0, 100]), ("pad", [0, 100, 200]), ("shift", [0, 100, 150])])
def test_tile_grid_edge(edge, rows):
    assert TileGrid(100, edge=edge).corners(slide(100, 250))[:, 1].tolist() == rows


def test_tile_grid_overlap_adds_no_redundant_tile():
    assert TileGrid(100, overlap=25, edge="pad").corners(slide(250, 100))[:, 0].tolist() == [0, 75, 150]


def test_tile_grid_rounds_corners_individually():
    grid = TileGrid(224, mpp=0.5)
    assert grid.scale(slide(9000, 300, mpp=0.499)) == pytest.approx(1.002004, abs=1e-6)
    x = grid.corners(slide(9000, 300, mpp=0.499))[:, 0]
    assert x.tolist() == [round(k * 224 * 0.5 / 0.499) for k in range(40)]
    assert x[-1] == 8754  # steps of 224 or 225 would end at 8736 or 8775


def test_tile_grid_by_magnification_equals_by_mpp():
    by_power, by_mpp = TileGrid(256, magnification=5), TileGrid(256, mpp=2.0)
    image = slide(5000, 4000)
    assert by_power.scale(image) == by_mpp.scale(image) == 4.0
    assert np.array_equal(by_power.corners(image), by_mpp.corners(image))


@given(
    st.integers(1, 3000),
    st.integers(16, 300),
    st.floats(0.8, 9),
    st.integers(0, 15),
    st.sampled_from(["drop", "pad", "shift"]),
)
def test_tile_grid_covers_the_slide(side, tile, scale, overlap, edge):
    grid = TileGrid(tile, mpp=scale, overlap=overlap, edge=edge)
    length = tile * scale
    try:
        x = grid.corners(slide(side, side, mpp=1.0))[:, 0]
    except SlideFileError:
        assert edge != "pad"
        assert length > side - 0.5
        return
    x = np.unique(x)
    assert x[0] == 0
    assert (np.diff(x) <= (tile - overlap) * scale + 1).all()  # no gap but that of rounding
    if edge == "pad":
        assert x[-1] < side <= x[-1] + length + 0.5
    else:
        assert x[-1] + length <= side + 0.5
        assert edge == "drop" or x[-1] + length >= side - 0.5
        assert x[-1] + length > side - (tile - overlap) * scale - 1


def test_tile_grid_describe_as_trident():
    """patch_size_level0 is patch_size * level0_magnification // target_magnification; 20 is 0.5 um per pixel."""
    shape = torch.tensor([900, 700])
    attributes = TileGrid(224, mpp=0.5, overlap=32).describe({"tile_size": 448.0, "mpp": 0.5, "spatial_shape": shape})
    assert attributes == {
        "features": {},
        "coords": {
            "patch_size": 224,
            "patch_size_level0": 448,
            "level0_magnification": 40,
            "target_magnification": 20,
            "overlap": 32,
            "level0_width": 900,
            "level0_height": 700,
        },
    }
    odd = TileGrid(224, mpp=0.5).describe({"tile_size": 224 * 0.5 / 0.2527, "mpp": 0.5, "spatial_shape": shape})
    assert odd["coords"]["patch_size_level0"] == 443
    assert odd["coords"]["level0_magnification"] == pytest.approx(10 / 0.2527)
    power = TileGrid(224, magnification=10).describe({"tile_size": 448.0, "mpp": None, "spatial_shape": shape})
    assert [power["coords"][f"{which}_magnification"] for which in ("level0", "target")] == [20, 10]
    unknown = TileGrid(224).describe({"tile_size": 224.0, "spatial_shape": shape})
    assert not {"level0_magnification", "target_magnification"} & set(unknown["coords"])


def test_tile_grid_names_what_a_slide_lacks():
    with pytest.raises(SlideFileError, match=r"as fine as the requested tiles, got 0.5 of its pixels per pixel"):
        TileGrid(mpp=0.25).corners(slide(900, 900))
    with pytest.raises(SlideFileError, match=r"as large as a tile, or `edge` 'pad', got \(200, 900\) for 256 pixels"):
        TileGrid().corners(slide(200, 900))
    assert TileGrid(edge="pad").corners(slide(200, 100)).tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("grid", "stated", "message", "option"),
    [
        ({"mpp": 0.5}, (None, 40.0), "its mpp, got none, but a magnification of 40 (give `slide_mpp` 0.25)", "0.25"),
        ({"mpp": 0.5}, (None, 20.0), "its mpp, got none, but a magnification of 20 (give `slide_mpp` 0.5)", "0.5"),
        ({"mpp": 0.5}, (None, None), "its mpp, got none (give `slide_mpp` MPP)", "MPP"),
        ({"magnification": 20}, (0.25, None), "got none, but a mpp of 0.25 (give `magnification` 40)", "40"),
        ({"magnification": 20}, (None, None), "its magnification, got none (give `magnification` M)", "M"),
    ],
)
def test_tile_grid_proposes_what_a_slide_lacks(grid, stated, message, option):
    with pytest.raises(SlideFileError, match=re.escape(message)) as error:
        TileGrid(**grid).corners(slide(900, 900, *stated))
    assert error.value.option == f"--{'magnification' if 'magnification' in grid else 'slide_mpp'} {option}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile_size": 0}, "`tile_size` must be a positive integer"),
        ({"mpp": 0.5, "magnification": 20}, "`mpp` or `magnification` must be given, not both"),
        ({"mpp": float("inf")}, "`mpp` must be positive and finite, got inf"),
        ({"overlap": 256}, "`overlap` must be less than `tile_size`, got 256"),
        ({"edge": "cut"}, "`edge` must be one of 'drop', 'pad', 'shift'"),
    ],
)
def test_tile_grid_refuses_invalid_options(options, message):
    with pytest.raises(ValueError, match=message):
        TileGrid(**options)
