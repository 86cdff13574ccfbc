"""Tests of wsi_mil on features that other tools made, with the slides beside them."""

import csv
import json
import logging

import h5py
import numpy as np
import openslide
import pytest
import tifffile
import torch
from PIL import Image

from monai_mil_ext.apps.bundle import save_model
from monai_mil_ext.data import InstanceSource, SlideFile, TileGrid
from monai_mil_ext.networks.nets import ABMIL
from monai_mil_ext.transforms import TileBag
from monai_mil_ext.utils.exceptions import root_cause
from tests.bundles.wsi import F, start, write_small_slide
from tests.data.slides.containers import marked, write_scn
from tests.make_slide import stained

FILES = ["s.geojson", "s.png", "s.tif", "s_map.json", "s_tiles.png", "viewer"]


def write_network(folder):
    torch.manual_seed(0)
    task = {"num_classes": 2, "class_names": ["benign", "malignant"]}
    save_model(folder, ABMIL(F, 2, hidden_size=16), sources=[InstanceSource(width=F)], task=task)


def infer(tmp_path, where, error="", **override):
    """Run inference, and return the rows of its table."""
    paths = {"ckpt_dir": str(tmp_path / "m"), "output_dir": str(tmp_path / "out"), "input": str(where)}
    workflow = start("inference", kind="infer", **paths, **override)
    if error:
        with pytest.raises(RuntimeError, match="Failed to evaluate") as raised:
            workflow.run()
        assert error in str(root_cause(raised.value))
    else:
        workflow.run()
    with (tmp_path / "out" / "results.csv").open() as file:
        return {row["case_id"]: row for row in csv.DictReader(file)}


def prediction(tmp_path, case="s"):
    return json.loads((tmp_path / "out" / case / "prediction.json").read_text())


def trident(path, slide, tile=32, **attributes):
    """Write features of the tiles of a slide as TRIDENT does."""
    size, tiles = SlideFile(slide).size, TileBag(TileGrid(tile, mpp=0.5))(slide)
    spec = {"patch_size": tile, "patch_size_level0": tile, "target_magnification": 20, "level0_magnification": 20}
    spec |= {"level0_width": size[0], "level0_height": size[1], **attributes}
    _write(path, tiles.coords, spec)
    return tiles


def clam(path, slide, tile=32):
    """Write features of the tiles of a slide as CLAM does, with coordinates that have no attributes."""
    tiles = TileBag(TileGrid(tile, mpp=0.5))(slide)
    _write(path, tiles.coords, {})
    return tiles


def _write(path, coords, spec):
    path.parent.mkdir(parents=True, exist_ok=True)
    features = np.random.default_rng(0).normal(size=(len(coords), F)).astype(np.float32)
    with h5py.File(path, "w") as file:
        file["features"], file["coords"] = features, coords.numpy()
        file["coords"].attrs.update(spec)


@pytest.mark.parametrize(
    "layout",
    [trident, pytest.param(clam, marks=pytest.mark.slow(buys="features of CLAM state nothing of their slide"))],
)
def test_wsi_mil_draws_features_on_their_slide_as_from_the_slide(layout, tmp_path):
    write_network(tmp_path / "m")
    (tmp_path / "slides" / "uuid").mkdir(parents=True)
    slide = write_small_slide(tmp_path / "slides" / "uuid" / "s.tif")
    tiles = layout(tmp_path / "in" / "s.h5", slide)
    rows = infer(tmp_path, tmp_path / "in", slide_dir=str(tmp_path / "slides"))
    assert rows["s"]["status"] == "done"
    assert sorted(p.name for p in (tmp_path / "out" / "s").iterdir()) == ["prediction.json", *FILES]
    result = prediction(tmp_path)
    assert (result["container"], result["num_tiles"]) == (f"{layout.__name__.upper()} features", 24)
    assert (result["slide_size"], result["tile_size"]) == ([320, 256], 32.0)
    assert result["slide_mpp"] == pytest.approx(0.5, rel=1e-3)
    tile = result["top_tiles"][0]
    assert [tile["x"], tile["y"]] in tiles.coords.tolist()
    for name in ("s.png", "s_tiles.png"):
        with Image.open(tmp_path / "out" / "s" / name) as image:
            assert min(image.size) > 200


@pytest.mark.slow(buys="polygons, map and pictures of a cropped slide meet, from its feature file to the viewer")
def test_wsi_mil_places_everything_within_the_bounds_of_a_slide(tmp_path):
    """A slide of 1280 x 1024 pixels in a plane of 10,000 x 8,000, which QuPath shows as 1280 x 1024 pixels."""
    write_network(tmp_path / "m")
    image = marked(stained((1024, 1280), (128, 0, 1152, 1024)))
    image[-128:, -128:] = image[0, -1]  # yellow is tissue, and the other corners are ink
    slide = write_scn(tmp_path / "s.scn", image)
    tiles = trident(tmp_path / "s.h5", slide, tile=128)
    assert len(tiles.coords) == 64
    infer(tmp_path, tmp_path / "s.h5", case_id="s", slide=str(slide))
    result = prediction(tmp_path)
    assert (result["bounds"], result["geojson_origin"]) == ([6000, 4000, 1280, 1024], [6000, 4000])
    assert result["slide_size"] == [10_000, 8_000]
    geojson = json.loads((tmp_path / "out/s/s.geojson").read_text())
    corners = np.array([tile["geometry"]["coordinates"][0] for tile in geojson["features"]])
    assert (corners.min(axis=(0, 1)).tolist(), corners.max(axis=(0, 1)).tolist()) == ([128, 0], [1152, 1024])
    tile = result["top_tiles"][0]
    assert 6000 <= tile["x"] < 7280
    assert 4000 <= tile["y"] < 5024
    # each polygon covers tissue of what QuPath shows
    shown = np.asarray(openslide.OpenSlide(slide).read_region((6000, 4000), 0, (1280, 1024)))[..., :3]
    for (x0, y0), _, (x1, y1), *_ in corners.astype(int):
        assert shown[y0:y1, x0:x1, 1].mean() < 200
    with tifffile.TiffFile(tmp_path / "out/s/s.tif") as file:
        about, pixels = json.loads(file.pages[0].description), file.pages[0].asarray()
    down = int(about["downsample"])
    assert (about["bounds"], pixels.shape[:2]) == ([6000, 4000, 1280, 1024], (1024 // down, 1280 // down))
    with_tile = (pixels != 255).any(axis=2).repeat(down, 0).repeat(down, 1)
    expected = np.zeros((1024, 1280), bool)
    expected[:, 128:1152] = True
    assert np.array_equal(with_tile, expected)


@pytest.mark.slow(buys="nothing is drawn on a slide that is not that of the features")
def test_wsi_mil_predicts_features_without_a_fitting_slide_and_names_the_reason(tmp_path):
    write_network(tmp_path / "m")
    slides, features = tmp_path / "slides", tmp_path / "in"
    for folder in ("a", "b"):
        (slides / folder).mkdir(parents=True)
    good = write_small_slide(slides / "good.tif")
    for name in ("other", "a/twice", "b/twice", "finer"):
        write_small_slide(slides / f"{name}.tif")
    (slides / "broken.svs").write_bytes(b"no slide")
    for name in ("good", "absent", "twice", "broken"):
        trident(features / f"{name}.h5", good)
    trident(features / "other.h5", good, level0_width=640)
    trident(features / "finer.h5", good, level0_magnification=40)
    error = "every slide must get a prediction, got some without all results for 5 of 6"
    rows = infer(tmp_path, features, error, slide_dir=str(slides))
    reasons = {
        "absent": "no slide found",
        "broken": "the slide can't be read: `slide` must be a slide that can be read",
        "finer": "a pixel of the features' slide is of magnification 40, one of the slide of 0.5 um",
        "other": "the features are of a slide of 640 x 256 pixels, the slide has 320 x 256",
        "twice": "2 slides of this name found",
    }
    assert rows["good"]["status"] == "done"
    for case, reason in reasons.items():
        assert rows[case]["status"].startswith(f"done; {reason}"), case
        assert rows[case]["status"].endswith(": no pictures")
        assert rows[case]["probability_1"] == rows["good"]["probability_1"]
        assert not list((tmp_path / "out" / case).glob("*.png"))
        assert (tmp_path / "out" / case / f"{case}.geojson").is_file()


@pytest.mark.slow(buys="pictures are never those of an earlier slide")
def test_wsi_mil_predicts_again_when_a_slide_is_given_or_changed(tmp_path):
    write_network(tmp_path / "m")
    (tmp_path / "slides").mkdir()
    slide = write_small_slide(tmp_path / "slides" / "s.tif")
    trident(tmp_path / "in" / "s.h5", slide)
    done = []
    for options in ({}, {"slide_dir": str(tmp_path / "slides")}, {"slide_dir": str(tmp_path / "slides")}):
        infer(tmp_path, tmp_path / "in", **options)
        done.append((tmp_path / "out/s/prediction.json").stat().st_mtime_ns)
    write_small_slide(slide, color=(120, 60, 140))
    infer(tmp_path, tmp_path / "in", slide_dir=str(tmp_path / "slides"))
    assert done[0] < done[1] == done[2] < (tmp_path / "out/s/prediction.json").stat().st_mtime_ns


@pytest.mark.slow(buys="no name of a slide in any result or message")
def test_wsi_mil_names_no_slide_of_a_table_in_its_results(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    write_network(tmp_path / "m")
    folder = tmp_path / "Secretname_slides"
    folder.mkdir()
    slide = write_small_slide(folder / "Secretname.tif", description="Secretname")
    (folder / "Secretname_2.tif").write_bytes(b"no slide")
    trident(tmp_path / "t" / "f.h5", slide)
    lines = ["case_id,image,slide", "c1,f.h5,Secretname.tif", "c2,f.h5,Secretname_2.tif", "c3,f.h5,Secretname_3"]
    (tmp_path / "t" / "table.csv").write_text("\n".join(lines))
    rows = infer(tmp_path, tmp_path / "t/table.csv", "some without all results for 2 of 3", slide_dir=str(folder))
    assert [rows[case]["status"].split(":")[0] for case in rows] == [
        "done",
        "done; the slide can't be read",
        "done; no slide found",
    ]
    assert (tmp_path / "out/c1/c1_tiles.png").is_file()
    written = [path.read_bytes().decode("latin-1") for path in (tmp_path / "out").rglob("*") if path.is_file()]
    written += [record.getMessage() for record in caplog.records if not record.exc_info]
    assert not [text for text in written if "Secretname" in text]


def test_wsi_mil_derives_the_resolution_of_trident_features_without_their_slide(tmp_path):
    """Without a resolution, viewers can't lay the map over the slide."""
    write_network(tmp_path / "m")
    slide = write_small_slide(tmp_path / "x.tif")
    trident(tmp_path / "s.h5", slide, level0_magnification=40)
    infer(tmp_path, tmp_path / "s.h5", case_id="s")
    result = prediction(tmp_path)
    assert result["slide_mpp"] == 0.25
    assert result["notes"] == ["slide_mpp 0.25 is derived from the magnification 40x that the features state"]
    assert SlideFile(tmp_path / "out/s/s.tif").mpp == pytest.approx(0.25 * result["map"]["downsample"])
