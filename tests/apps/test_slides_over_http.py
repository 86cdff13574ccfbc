"""Tests of the app `mil` for slides, over HTTP on a real MONAI Label server."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile

from tests.bundles.wsi import start

pytestmark = [pytest.mark.network, pytest.mark.slow(buys="QuPath's requests to a real MONAI Label server")]
MODEL = "/infer/wsi_v2/wsi_mil"


def ask(server, output, **params):
    wsi = {"level": 0, "location": [0, 0], "size": [64, 64], "tile_size": [32, 32], "params": params}
    return server.post(f"{MODEL}?image=slide_1&output={output}", data={"wsi": json.dumps(wsi)})


@pytest.fixture(scope="module")
def expected(server, tmp_path_factory):
    """The results of the bundle itself for the slide, in this process: prediction and tiles."""
    root, out = server.app / "model" / "wsi_mil", tmp_path_factory.mktemp("expected")
    places = {
        "bundle_root": str(root),
        "output_dir": str(out),
        "input": str(server.studies / "slide_1.tif"),
        "case_id": "slide",
    }
    from .conftest import SITE

    start("inference", "slides", kind="infer", **places, **SITE).run()
    tiles = json.loads((out / "slide" / "slide.geojson").read_text())["features"]
    return json.loads((out / "slide" / "prediction.json").read_text()), tiles


def test_slide_infer_task_json_equals_the_prediction_of_the_bundle(server, expected):
    answer, (record, _) = ask(server, "json").json(), expected
    assert [entry["score"] for entry in answer["prediction"]] == pytest.approx(record["probability"], abs=1e-5)
    assert [entry["label"] for entry in answer["prediction"]] == ["benign", "malignant"]
    assert (answer["num_tiles"], answer["slide_size"]) == (24, [320, 256])  # whatever region the viewer shows
    assert [(entry["x"], entry["y"]) for entry in answer["top_tiles"]] == [
        (t["x"], t["y"]) for t in record["top_tiles"]
    ]
    assert answer["use"] == "research use only"
    assert "slide_1" not in json.dumps(answer)
    assert str(server.studies) not in json.dumps(answer)


def test_dsa_annotation_of_the_server_has_heat_map_and_outlines(server, expected):
    drawn, (record, tiles) = ask(server, "dsa").json(), expected
    heat, *outlines = drawn["elements"]
    assert (heat["type"], len(heat["points"])) == ("heatmap", 24)
    want = {
        tuple(np.array(entry["geometry"]["coordinates"][0][0]) + 16): entry["properties"]["measurements"]["attention"]
        for entry in tiles
    }
    got = {(x, y): value for x, y, _, value in heat["points"]}
    assert got == pytest.approx(want, abs=1e-6)
    assert {element["type"] for element in outlines} == {"polyline"}
    assert [element["points"][0][:2] for element in outlines] == [[t["x"], t["y"]] for t in record["top_tiles"]]
    assert drawn["attributes"]["use"] == "research use only"


def test_asap_annotation_of_the_server_has_polygons(server, expected):
    root = ElementTree.fromstring(ask(server, "asap").content)  # noqa: S314  (our own server's)
    polygons = root.findall("./Annotations/Annotation")
    corners = [[(float(c.get("X")), float(c.get("Y"))) for c in entry.iter("Coordinate")] for entry in polygons]
    edge = 32
    squares = [
        [(x, y), (x + edge, y), (x + edge, y + edge), (x, y + edge)]
        for x, y in ((t["x"], t["y"]) for t in expected[0]["top_tiles"])
    ]
    assert corners == squares
    assert {entry.get("PartOfGroup") for entry in polygons} == {g.get("Name") for g in root.iter("Group")}


def test_slide_infer_task_writes_geojson_and_a_pyramid(server, expected, tmp_path):
    tiles = ask(server, "dsa", result_format="geojson").json()["features"]
    values = [[entry["properties"]["measurements"]["attention"] for entry in group] for group in (tiles, expected[1])]
    assert values[0] == pytest.approx(values[1], abs=1e-6)
    (tmp_path / "map.tif").write_bytes(ask(server, "asap", result_format="tiff").content)
    assert tifffile.imread(tmp_path / "map.tif").shape == (32, 40, 3)  # a quarter of a tile a pixel


def test_slide_infer_task_refuses_invalid_slides(server):
    scan = (server.studies / "scan_45.nii").read_bytes()
    for name in ("scan.nii", "slide.tif"):
        answer = server.post(f"{MODEL}?output=json", 400, files={"file": (name, scan)})
        assert "SlideFileError" in answer.json()["detail"] or "slide" in answer.json()["detail"]
    server.post(f"{MODEL}?image=/etc/passwd&output=json", 403)
    wsi = json.dumps({"params": {"result_format": "../../x"}})
    server.post(f"{MODEL}?image=slide_1", 400, data={"wsi": wsi})
    assert ask(server, "json").json()["num_tiles"] == 24
