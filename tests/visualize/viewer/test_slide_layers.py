"""Tests of the values that the page of a slide reads."""

import base64

import numpy as np
import pytest

from monai_mil_ext.data.slides.heatmap_files import _colorize
from monai_mil_ext.visualize.viewer import slide_layers
from monai_mil_ext.visualize.viewer.slide_layers import map_data, tile_data

EXTENT = (16.0, 8.0, 1000.0, 800.0)


def decoded(code, dtype):
    return np.frombuffer(base64.b64decode(code), dtype)


@pytest.mark.parametrize(("stride", "pixel"), [(64, 64), (32, 32), (8, 16), (80, 16)])
def test_map_data_gives_back_places_and_scores(stride, pixel):
    coords = np.array([[160, 88], [160 + stride, 88], [160, 88 + 3 * stride]])
    scores = np.array([0.2, 0.7, 0.1])
    data = map_data(coords, {"mean": scores, "head 0": scores[::-1]}, 64, "ratio", EXTENT)
    places = decoded(data["places"], "<u2").reshape(-1, 2) * data["step"] + np.array(data["origin"])
    assert np.array_equal(places, coords - (16, 8))
    assert [entry["name"] for entry in data["maps"]] == ["mean", "head 0"]
    assert np.array_equal(decoded(data["maps"][0]["scores"], "<f4"), scores.astype("f4"))
    assert (data["step"], data["pixel"], data["count"]) == (stride, pixel, 3)
    assert [scaling["name"] for scaling in data["scalings"]] == ["ratio", "percentile", "none"]


def test_map_data_of_places_without_a_grid_and_of_one_tile():
    coords = np.array([[0, 0], [70_001, 3]])
    data = map_data(coords, {"a": np.ones(2) / 2}, 64, "percentile", (0.0, 0.0, 80_000.0, 80_000.0))
    assert data["wide"]
    assert np.array_equal(decoded(data["places"], "<u4").reshape(-1, 2), coords)
    assert data["pixel"] == 80_000 / slide_layers.MAX_PIXELS
    assert data["scalings"][0]["name"] == "percentile"
    assert map_data(coords[:1], {"a": np.ones(1)}, 64, "none", EXTENT)["step"] == 1


def test_map_data_leaves_out_heads_that_are_too_large(monkeypatch):
    monkeypatch.setattr(slide_layers, "MAX_SCORES", 7)
    maps = {str(k): np.ones(3) for k in range(4)}
    assert [entry["name"] for entry in map_data(np.eye(3, 2), maps, 1, "ratio", EXTENT)["maps"]] == ["0", "1"]


@pytest.mark.parametrize("scaling", ["none", "signed"])
def test_map_data_has_the_colors_of_the_other_results(scaling):
    data = map_data(np.zeros((1, 2)), {"a": np.ones(1)}, 1, scaling, EXTENT)
    colors = np.frombuffer(bytes.fromhex(data["colors"]), np.uint8).reshape(256, 3)
    assert np.array_equal(colors, _colorize(np.linspace(-1, 1, 256), scaling))


def test_tile_data_has_ratios_and_smaller_pictures_of_many_tiles():
    noise = np.random.default_rng(0).integers(0, 255, (30, 224, 224, 3)).astype(np.uint8)
    coords, maps = np.zeros((60, 2)), {"a": np.arange(60) / 1770}
    data = tile_data(coords, maps, "percentile", np.arange(59, 29, -1), np.arange(30), (noise, noise))
    assert [len(data["top"]), len(data["bottom"])] == [30, 30]
    assert [entry["text"] for entry in (data["top"][0], data["bottom"][0])] == ["2", "< 0.01"]
    size = sum(len(entry["src"]) for group in data.values() for entry in group)
    assert size < slide_layers.TILE_BYTES * 1.4
    assert all(entry["src"].startswith("data:image/jpeg;base64,") for entry in data["top"])
    assert tile_data(coords, maps, "signed", np.array([3]), None, None) == {
        "top": [{"tile": 3, "text": "0.00169", "src": ""}],
        "bottom": [],
    }
