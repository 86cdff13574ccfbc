"""The red corner of a slide is found there, whatever the container: by tiles, polygons and map, to the pixel."""

import csv
import json

import numpy as np
import pytest
import tifffile
import torch

from monai_mil_ext.apps.bundle import save_model
from monai_mil_ext.data import InstanceSource, SlideFile, TileGrid, find_dicom_slides
from monai_mil_ext.networks.nets import ABMIL
from tests.bundles.wsi import ENCODER, start
from tests.data.slides.containers import CONTAINERS, SIDE, marked
from tests.make_slide import stained

SHAPE = (5 * SIDE, 7 * SIDE)  # rows and columns of the slide
NET = "$torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())"


def write_network(folder):
    """A network whose attention grows with the redness of a tile: red minus green minus blue."""
    net = ABMIL(3, 2, hidden_size=1, attention_size=1, gated=False)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(0.5)
        net.embed[0].weight.copy_(torch.tensor([[1.0, -1.0, -1.0]]))
        net.attend.score.weight.fill_(20.0)
    save_model(folder, net, sources=[InstanceSource(width=3)], task={"num_classes": 2})


def write_slides(folder):
    """Write a slide in each container, and return the case IDs with the container and the path."""
    image, cases = marked(stained(SHAPE, (SIDE, 0, 6 * SIDE, 5 * SIDE))), {}
    for number, (container, (name, write)) in enumerate(CONTAINERS.items()):
        path = folder / f"{number}" / name.replace("s.", f"case{number}.", 1)
        path.parent.mkdir(parents=True)
        write(path, image, 0.5)
        case = find_dicom_slides(path)[0][0] if path.is_dir() else path.stem
        cases[case] = container, path
    return cases


@pytest.mark.slow(buys="tile, polygon and map of the highest attention are the same pixels in every container")
def test_tile_polygon_and_map_meet_in_the_red_corner_of_every_container(tmp_path):
    write_network(tmp_path / "m")
    cases = write_slides(tmp_path / "in")
    paths = {"ckpt_dir": str(tmp_path / "m"), "output_dir": str(tmp_path / "out"), "input": str(tmp_path / "in")}
    spec = {**ENCODER["encoder"]["input_spec"], "size": [SIDE, SIDE]}
    options = {"encoder": {**ENCODER["encoder"], "net": NET, "input_spec": spec}, "tile_size": SIDE}
    start("inference", "slides", kind="infer", **paths, **options, **{"tiles#tissue": False}).run()
    with (tmp_path / "out" / "results.csv").open() as file:
        rows = {row["case_id"]: row for row in csv.DictReader(file)}
    assert {case: row["status"] for case, row in rows.items()} == dict.fromkeys(cases, "done")
    for case, (container, path) in cases.items():
        _check(tmp_path / "out" / case, case, path, container)


def _check(folder, case, path, container):
    result = json.loads((folder / "prediction.json").read_text())
    x0, y0 = SlideFile(path).bounds[:2]
    top, second = result["top_tiles"][:2]
    assert top["attention"] > 2 * second["attention"], container
    assert (top["x"], top["y"], result["tile_size"]) == (x0, y0, SIDE), container
    assert result["slide_mpp"] == pytest.approx(0.5, rel=1e-3), container
    assert result["geojson_origin"] == [x0, y0], container
    tiles = json.loads((folder / f"{case}.geojson").read_text())["features"]
    assert len(tiles) == result["num_tiles"] == len(TileGrid(SIDE).corners(SlideFile(path))) == 35, container
    highest = max(tiles, key=lambda tile: tile["properties"]["measurements"]["attention"])
    corners = np.array(highest["geometry"]["coordinates"][0])
    assert corners.min(axis=0).tolist() == [0, 0], container
    assert corners.max(axis=0).tolist() == [SIDE, SIDE], container
    with tifffile.TiffFile(folder / f"{case}.tif") as file:
        down, pixels = int(json.loads(file.pages[0].description)["downsample"]), file.pages[0].asarray()
    assert (pixels.shape[0] * down, pixels.shape[1] * down) == SHAPE, container
    brightness = pixels.astype(int).sum(axis=2).repeat(down, 0).repeat(down, 1)
    expected = np.zeros(SHAPE, bool)
    expected[:SIDE, :SIDE] = True
    assert np.array_equal(brightness == brightness.max(), expected), container
    assert (folder / f"{case}.png").is_file(), container
    assert (folder / f"{case}_tiles.png").is_file(), container
