"""Tests of the files that SlideResultsSaver writes."""

import json

import pytest
import torch
from PIL import Image

from monai_mil_ext.handlers import SlideResultsSaver
from monai_mil_ext.handlers.savers import slide_results
from tests.handlers.savers.items import run, slide
from tests.make_slide import stained, write_slide


def prediction(folder):
    return json.loads((folder / "prediction.json").read_text())


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_slide_results_saver_writes_map_and_tiles_without_padding(tmp_path):
    run(SlideResultsSaver(tmp_path, class_names=["normal", "tumor"], settings="abc"), [slide()])
    result = prediction(tmp_path / "s1")
    assert (result["prediction"], result["predicted_class"], result["settings"]) == (1, "tumor", "abc")
    assert (result["num_tiles"], result["tile_size"], result["slide_mpp"]) == (3, 64.0, 0.5)
    shown = {"attention": "mean", "scaling": "ratio", "downsample": 16.0}
    assert result["map"] == {**shown, "highest_ratio": pytest.approx(1.5), "nearly_even": False}
    assert (result["slide_size"], result["bounds"], result["geojson_origin"]) == ([160, 128], [0, 0, 160, 128], [0, 0])
    assert result["tile_coordinates"].startswith("pixels of level 0 of the whole slide")
    assert not {"container", "notes", "pictures"} & set(result)
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


@pytest.mark.parametrize("index", [[0, 0, 1], [1, 1, 2], [0, 2, 2], [0, 0, 0]])
def test_slide_results_saver_counts_the_tiles_of_all_slides_of_a_patient(index, tmp_path):
    """A slide without tiles has its place in the list, the last one too."""
    item = slide(slide_index=torch.tensor([*index, 0]), slide_count=3, unit="um")
    SlideResultsSaver(tmp_path).save(item)
    slides = prediction(tmp_path / "s1")["slides"]
    assert [one["num_tiles"] for one in slides] == [index.count(i) for i in range(3)]
    assert sum(one["attention"] for one in slides) == pytest.approx(1)


def test_slide_results_saver_rejects_class_names_of_other_number(tmp_path):
    saver = SlideResultsSaver(tmp_path, class_names=["a", "b", "c"])
    with pytest.raises(ValueError, match=r"`class_names` must be one for each of 2 classes, got \['a', 'b', 'c'\]"):
        saver.save(slide())
    assert not (tmp_path / "s1" / "prediction.json").exists()


PIXELS = {
    "thumbnail": torch.full((32, 40, 3), 200, dtype=torch.uint8),
    "thumbnail_downsample": 4.0,
    "thumbnail_origin": torch.tensor([16.0, 0.0], dtype=torch.float64),
    "top_tiles": torch.full((3, 8, 8, 3), 100, dtype=torch.uint8),
    "bottom_tiles": torch.zeros((0, 8, 8, 3), dtype=torch.uint8),
}


def drawn(monkeypatch):
    """Return what the two pictures of a slide are drawn from."""
    calls = {}
    for name in ("write_slide_overlay", "write_tile_montage"):
        monkeypatch.setattr(
            slide_results, name, lambda *args, name=name, **kwargs: calls.update({name: (args, kwargs)})
        )
    return calls


def test_slide_results_saver_shows_one_scale_and_names_the_highest_ratio(tmp_path, monkeypatch):
    calls = drawn(monkeypatch)
    SlideResultsSaver(tmp_path, class_names=["normal", "tumor"]).save(slide(**PIXELS))
    title = "s1: probability of tumor 0.75 (threshold 0.5: tumor)\nattention: at most 1.5 x uniform"
    args, kwargs = calls["write_slide_overlay"]
    assert (kwargs["title"], args[2].origin) == (title, (16.0, 0.0))
    _, _, _, _, high, low, shown, _ = calls["write_tile_montage"][0]
    assert (high.tolist(), low.tolist(), shown) == (pytest.approx([1.5, 0.9, 0.6]), [], title)


def test_slide_results_saver_says_that_attention_is_nearly_even(tmp_path, monkeypatch):
    calls = drawn(monkeypatch)
    SlideResultsSaver(tmp_path).save(slide(attention=torch.tensor([0.3, 0.35, 0.35, 0.0])[:, None], **PIXELS))
    assert calls["write_slide_overlay"][1]["title"].endswith(
        "at most 1.05 x uniform, so nearly even: its order says little"
    )
    assert prediction(tmp_path / "s1")["map"]["nearly_even"] is True


def test_slide_results_saver_states_container_and_notes(tmp_path):
    SlideResultsSaver(tmp_path).save(slide(container="TRIDENT features", notes="slide_mpp 0.25 is derived; a second"))
    result = prediction(tmp_path / "s1")
    assert (result["container"], result["notes"]) == ("TRIDENT features", ["slide_mpp 0.25 is derived", "a second"])


def test_slide_results_saver_counts_polygons_from_the_bounds(tmp_path):
    places = {"coords": torch.tensor([[6000, 4000], [6064, 4000], [6064, 4064], [0, 0]]), "spatial_shape": (9000, 8000)}
    SlideResultsSaver(tmp_path).save(slide(**places, bounds=torch.tensor([6000, 4000, 160, 128])))
    result = prediction(tmp_path / "s1")
    assert (result["geojson_origin"], result["slide_size"]) == ([6000, 4000], [9000, 8000])
    assert [(tile["x"], tile["y"]) for tile in result["top_tiles"]] == [(6064, 4000), (6064, 4064), (6000, 4000)]
    geojson = json.loads((tmp_path / "s1" / "s1.geojson").read_text())
    corners = [tile["geometry"]["coordinates"][0][0] for tile in geojson["features"]]
    assert (corners, geojson["origin"]) == ([[0, 0], [64, 0], [64, 64]], [6000.0, 4000.0])
    with Image.open(tmp_path / "s1" / "s1.tif") as image:
        assert image.size == (10, 8)


def test_slide_results_saver_makes_missing_pictures_part_of_the_status(tmp_path):
    saver = SlideResultsSaver(tmp_path)
    record = saver.save(slide(pictures_missing="no slide found"))
    assert record["pictures"] == {"missing": "no slide found"}
    assert saver.status(record) == "done; no slide found: no pictures"
    plain = SlideResultsSaver(tmp_path, pictures=[])
    assert plain.status(plain.save(slide(pictures_missing="no slide found"))) == "done"


def test_slide_results_saver_writes_a_viewer_and_removes_that_of_an_earlier_run(tmp_path):
    saver = SlideResultsSaver(tmp_path, class_names=["a", "b"], pictures=["overlay", "viewer"])
    saver.save(slide(**PIXELS, notes="slide_mpp 0.5 was given"))
    text = (tmp_path / "s1" / "viewer" / "index.html").read_text()
    for part in ("s1: probability of b 0.75 (threshold 0.5: b)", "slide_mpp 0.5 was given", "../s1.png", "../s1.tif"):
        assert part in text
    assert "../prediction.json" in text  # it is written last, and yet linked
    assert "../s1_tiles.png" not in text
    SlideResultsSaver(tmp_path, pictures=[]).save(slide(**PIXELS))
    assert names(tmp_path / "s1") == ["prediction.json", "s1.geojson", "s1.tif", "s1_map.json"]


@pytest.mark.parametrize("is_damaged", [False, True])
def test_slide_results_saver_writes_all_pixels_or_says_why_not(tmp_path, is_damaged):
    path = write_slide(tmp_path / "doe.tif", stained((128, 160), (0, 0, 128, 128)), tile=64, levels=1)
    if is_damaged:
        path.write_bytes(b"no slide any more")
    saver = SlideResultsSaver(tmp_path / "out", pictures=["viewer-full"])
    record = saver.save(slide(**PIXELS, source=str(path)))
    found = names(tmp_path / "out" / "s1" / "viewer")
    assert ("tiles" in found, "index.html" in found) == (not is_damaged, True)
    if is_damaged:
        status = saver.status(record)
        assert status.startswith("done; the slide can't be shown with all pixels: ")
        assert "doe" not in status
    else:
        assert saver.status(record) == "done"
        assert (tmp_path / "out" / "s1" / "viewer" / "tiles" / "8" / "0_0.jpg").is_file()


def test_slide_results_saver_of_features_shows_the_map_alone(tmp_path):
    saver = SlideResultsSaver(tmp_path, pictures=["viewer-full"])
    assert saver.status(saver.save(slide())) == "done"
    assert "thumbnail.jpg" not in names(tmp_path / "s1" / "viewer")
