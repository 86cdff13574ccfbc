"""Tests of the files that SlideResultsSaver writes."""

import json

import pytest
import torch

from monai_mil_ext.handlers import SlideResultsSaver
from tests.handlers.savers.items import run, slide


def prediction(folder):
    return json.loads((folder / "prediction.json").read_text())


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_slide_results_saver_writes_map_and_tiles_without_padding(tmp_path):
    run(SlideResultsSaver(tmp_path, class_names=["normal", "tumor"], settings="abc"), [slide()])
    result = prediction(tmp_path / "s1")
    assert (result["prediction"], result["predicted_class"], result["settings"]) == (1, "tumor", "abc")
    assert (result["num_tiles"], result["tile_size"], result["slide_mpp"]) == (3, 64.0, 0.5)
    assert result["map"] == {"attention": "mean", "scaling": "ratio", "downsample": 16.0}
    assert result["slide_size"] == [160, 128]
    assert [(tile["x"], tile["y"]) for tile in result["top_tiles"]] == [(64, 0), (64, 64), (0, 0)]
    assert result["top_tiles"][0]["attention"] == pytest.approx(0.5)
    assert result["top_tiles"][0]["ratio"] == pytest.approx(1.5)
    geojson = json.loads((tmp_path / "s1" / "s1.geojson").read_text())
    assert len(geojson["features"]) == 3
    assert names(tmp_path / "s1") == ["prediction.json", "s1.geojson", "s1.tif", "s1_map.json"]


def test_slide_results_saver_writes_pictures_of_items_with_pixels(tmp_path):
    tiles = torch.randint(0, 255, (3, 8, 8, 3), dtype=torch.uint8)
    thumbnail = torch.full((32, 40, 3), 200, dtype=torch.uint8)
    pixels = {"thumbnail": thumbnail, "thumbnail_downsample": 4.0, "top_tiles": tiles, "bottom_tiles": tiles[:0]}
    SlideResultsSaver(tmp_path).save(slide(**pixels))
    assert {"s1.png", "s1_tiles.png"} < set(names(tmp_path / "s1"))
    SlideResultsSaver(tmp_path, pictures=[]).save(slide(**pixels))
    assert names(tmp_path / "s1") == ["prediction.json", "s1.geojson", "s1.tif", "s1_map.json"]


@pytest.mark.parametrize("name", ["s1.png", "s1_tiles.png"])
def test_slide_results_saver_names_the_model_in_each_picture(tmp_path, name):
    tiles = torch.full((3, 8, 8, 3), 100, dtype=torch.uint8)
    thumbnail = torch.full((32, 40, 3), 200, dtype=torch.uint8)
    pixels = {"thumbnail": thumbnail, "thumbnail_downsample": 4.0, "top_tiles": tiles, "bottom_tiles": tiles[:0]}
    pictures = []
    for version in ("2", "3", "2"):
        model = {"name": "tumor", "version": version, "trained_on": "unknown"}
        SlideResultsSaver(tmp_path, model=model).save(slide(**pixels))
        pictures.append((tmp_path / "s1" / name).read_bytes())
    assert pictures[0] == pictures[2]
    assert pictures[0] != pictures[1]


def test_slide_results_saver_gives_the_reason_for_a_missing_map(tmp_path):
    SlideResultsSaver(tmp_path).save(slide(unit="um"))
    result = prediction(tmp_path / "s1")
    assert result["map"] == {"missing": "the unit of the coordinates is 'um', and `slide_mpp` is not known"}
    assert "top_tiles" not in result
    assert names(tmp_path / "s1") == ["prediction.json"]


def test_slide_results_saver_rejects_class_names_of_other_number(tmp_path):
    saver = SlideResultsSaver(tmp_path, class_names=["a", "b", "c"])
    with pytest.raises(ValueError, match=r"`class_names` must be one for each of 2 classes, got \['a', 'b', 'c'\]"):
        saver.save(slide())
    assert not (tmp_path / "s1" / "prediction.json").exists()
