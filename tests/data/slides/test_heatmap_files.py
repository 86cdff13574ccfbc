"""Tests of slide results as files, read back by the libraries of viewers."""

import json

import numpy as np
import openslide
import pytest
import tifffile
import torch
from matplotlib import colormaps

from monai_mil_ext.data import write_heatmap_tiff, write_tile_geojson
from monai_mil_ext.transforms import TileScoresToHeatmap

COORDS = np.array([[0, 0], [300, 0], [0, 300], [64, 600]])
SCORES = np.array([0.1, 0.4, 0.2, 0.3])


def color(fraction):
    return list(colormaps["cividis"](fraction, bytes=True)[:3])


def heatmap(side=40_000, mpp=0.5):
    to_map = TileScoresToHeatmap(16, "ratio")
    shape, coords = np.array([side, side // 2]), np.minimum(COORDS, 300) * 64
    inside = (coords < shape).all(axis=1)
    return to_map(SCORES[inside], coords[inside], 19_200, shape, mpp)


def test_write_tile_geojson_squares_with_score_and_color(tmp_path):
    path = write_tile_geojson(tmp_path / "new", "case-1", torch.from_numpy(SCORES), COORDS, 256.5)
    content = json.loads(path.read_text())
    assert path.name == "case-1.geojson"
    assert (content["type"], content["use"], content["case_id"]) == (
        "FeatureCollection",
        "research use only",
        "case-1",
    )
    for tile, (x, y), score in zip(content["features"], COORDS.tolist(), SCORES, strict=True):
        ring = tile["geometry"]["coordinates"][0]
        assert ring == [[x, y], [x + 256.5, y], [x + 256.5, y + 256.5], [x, y + 256.5], [x, y]]
        assert tile["properties"]["measurements"] == {"attention": score}
        assert tile["properties"]["color"] == color((score - 0.1) / 0.3)
    assert (tile["type"], tile["geometry"]["type"]) == ("Feature", "Polygon")


def test_write_tile_geojson_without_tiles_and_with_equal_scores(tmp_path):
    empty = write_tile_geojson(tmp_path, "none", np.empty(0), np.empty((0, 2)), 64)
    assert json.loads(empty.read_text())["features"] == []
    equal = write_tile_geojson(tmp_path, "equal", np.full(4, 0.25), COORDS, 64, "score")
    tiles = json.loads(equal.read_text())["features"]
    assert {tuple(tile["properties"]["color"]) for tile in tiles} == {tuple(color(0.5))}


def test_write_heatmap_tiff_opens_in_openslide(tmp_path):
    heat = heatmap()
    path = write_heatmap_tiff(tmp_path, "case-1", heat)
    slide = openslide.OpenSlide(path)
    assert slide.level_dimensions == ((2500, 1250), (1250, 625), (625, 313), (313, 157))
    assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(8.0, rel=1e-3)
    assert 2500 * 16 == 40_000
    pixels = np.asarray(slide.read_region((0, 0), 0, (2500, 1250)))[..., :3]
    values = heat[0].numpy()
    empty = np.isnan(values)
    assert (pixels[empty] == 255).all()
    fraction = np.log(values[~empty].astype(np.float64) * 4) / np.log(16)
    expected = colormaps["cividis"](fraction, bytes=True)[:, :3].astype(int)
    assert np.abs(pixels[~empty] - expected).max() <= 1
    last = np.asarray(slide.read_region((0, 0), 3, (313, 157)))[..., :3]
    assert np.abs(last[20, 20].astype(int) - pixels[164, 164]).max() <= 1


def test_write_heatmap_tiff_describes_its_colors(tmp_path):
    path = write_heatmap_tiff(tmp_path, "case-1", heatmap())
    with tifffile.TiffFile(path) as file:
        description = json.loads(file.pages[0].description)
    assert description == {
        "use": "research use only",
        "case_id": "case-1",
        "scaling": "ratio",
        "downsample": 16.0,
        "spatial_shape": [40_000, 20_000],
        "bounds": [0, 0, 40_000, 20_000],
        "low": pytest.approx(0.4),
        "high": pytest.approx(1.6),
        "colors": "cividis",
        "color_range": [0.25, 4.0],
    }


@pytest.mark.parametrize("scores", [[0.25, 0.25, 0.25, 0.25], [0.1, 0.4, 0.2, 0.3], [0.0, 1.0, 0.0, 0.0]])
def test_tiles_and_map_have_the_colors_of_their_ratio_in_every_slide(scores, tmp_path):
    """A map that stretched its range would show the noise of even attention as contrast."""
    fractions = [0.0 if s == 0 else min(max(np.log(4 * 4 * s) / np.log(16), 0), 1) for s in scores]
    coords, scores = np.array([[0, 0], [64, 0], [0, 64], [64, 64]]), np.array(scores)
    path = write_tile_geojson(tmp_path, "c", scores, coords, 64, scaling="ratio")
    tiles = [tile["properties"] for tile in json.loads(path.read_text())["features"]]
    heat = TileScoresToHeatmap(64, "ratio")(scores, coords, 64, (128, 128))
    with tifffile.TiffFile(write_heatmap_tiff(tmp_path, "c", heat)) as file:
        pixels = file.pages[0].asarray()[:2, :2].reshape(4, 3).astype(int)
    for tile, pixel, score, fraction in zip(tiles, pixels, scores, fractions, strict=True):
        assert np.abs(np.array(tile["color"]) - color(fraction)).max() <= 1
        assert np.abs(pixel - color(fraction)).max() <= 1
        assert tile["measurements"] == {"attention": score, "attention / uniform": pytest.approx(4 * score)}


def test_write_tile_geojson_colors_percentiles_and_refuses_another_scaling(tmp_path):
    path = write_tile_geojson(tmp_path, "c", np.array([0.9, 0.05, 0.05]), COORDS[:3], 64, scaling="percentile")
    colors = [tile["properties"]["color"] for tile in json.loads(path.read_text())["features"]]
    assert colors == [color(1.0), color(0.0), color(0.0)]
    with pytest.raises(
        ValueError, match="`scaling` must be one of 'none', 'ratio', 'percentile', 'signed', got 'rank'"
    ):
        write_tile_geojson(tmp_path, "c", SCORES, COORDS, 64, scaling="rank")


def test_write_tile_geojson_counts_from_an_origin(tmp_path):
    path = write_tile_geojson(tmp_path, "c", SCORES, COORDS + np.array([6000, 4000]), 64, origin=(6000, 4000))
    content = json.loads(path.read_text())
    assert content["origin"] == [6000.0, 4000.0]
    assert [tile["geometry"]["coordinates"][0][0] for tile in content["features"]] == COORDS.tolist()


def test_write_heatmap_tiff_without_mpp_or_tiles(tmp_path):
    plain = openslide.OpenSlide(write_heatmap_tiff(tmp_path, "plain", heatmap(mpp=None)))
    assert "openslide.mpp-x" not in plain.properties
    none = TileScoresToHeatmap(16)(np.empty(0), np.empty((0, 2)), 64, (640, 480))
    blank = openslide.OpenSlide(write_heatmap_tiff(tmp_path, "none", none))
    assert np.asarray(blank.read_region((0, 0), 0, (40, 30))).min() == 255


def test_write_heatmap_tiff_is_atomic(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk on fire")

    monkeypatch.setattr(tifffile.TiffWriter, "write", fail)
    with pytest.raises(OSError, match="disk on fire"):
        write_heatmap_tiff(tmp_path, "case-1", heatmap(6400))
    assert list(tmp_path.iterdir()) == []


def test_write_heatmap_tiff_refuses_invalid_input(tmp_path):
    with pytest.raises(ValueError, match="`case_id` must be letters, digits"):
        write_tile_geojson(tmp_path, "../c", SCORES, COORDS, 64)
    with pytest.raises(ValueError, match="`case_id` must be letters, digits"):
        write_heatmap_tiff(tmp_path, "a/b", heatmap(6400))
    for scores in (SCORES[:2], np.array([np.nan, 1, 2, 3]), SCORES[:, None]):
        with pytest.raises(ValueError, match=r"`scores` must be finite, one for each of `coords` \(N, 2\), got"):
            write_tile_geojson(tmp_path, "c", scores, COORDS, 64)
    with pytest.raises(ValueError, match=r"`heatmap` must be a MetaTensor \(A, h, w\) with channel 1, got shape"):
        write_heatmap_tiff(tmp_path, "c", heatmap(6400), 1)


def test_signed_scores_against_a_class_have_the_color_of_the_end(tmp_path):
    scores = np.array([-4.0, 1.0])
    path = write_tile_geojson(tmp_path, "c1", scores, COORDS[:2], 64, "contribution", scaling="signed")
    colors = [tile["properties"]["color"] for tile in json.loads(path.read_text())["features"]]
    assert colors == colormaps["coolwarm"]([0.0, 0.625], bytes=True)[:, :3].tolist()


def test_signed_scores_diverge_from_gray_at_zero(tmp_path):
    scores, coords = np.array([-0.5, 0.0, 2.0]), np.array([[0, 0], [64, 0], [128, 0]])
    path = write_tile_geojson(tmp_path, "c1", scores, coords, 64, "contribution", scaling="signed")
    tiles = json.loads(path.read_text())
    colors = [tile["properties"]["color"] for tile in tiles["features"]]
    expected = colormaps["coolwarm"]([0.375, 0.5, 1.0], bytes=True)[:, :3]
    assert colors == expected.tolist()
    assert tiles["colors"] == "coolwarm"
    assert tiles["features"][0]["properties"]["measurements"] == {"contribution": -0.5}
    heat = TileScoresToHeatmap(64, "signed")(scores, coords, 64, (256, 64))
    file = write_heatmap_tiff(tmp_path, "c1", heat)
    np.testing.assert_array_equal(tifffile.imread(file)[0], [*expected, [255, 255, 255]])
    with tifffile.TiffFile(file) as tiff:
        described = json.loads(tiff.pages[0].description)
    assert (described["colors"], described["color_range"]) == ("coolwarm", [-2.0, 2.0])
