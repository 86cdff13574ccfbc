"""Tests of the annotations that viewers of slides draw."""

import json
from xml.etree import ElementTree

from monai_mil_ext.apps.label.slide_annotations import asap_annotation, dsa_annotation

RECORD = {
    "model": "wsi_mil",
    "prediction": [{"idx": 0, "label": "benign", "score": 1.0}],
    "tile_size": 32,
    "top_tiles": [{"x": 64, "y": 0}, {"x": 0, "y": 32}],
}
SQUARES = [[[64, 0], [96, 0], [96, 32], [64, 32]], [[0, 32], [32, 32], [32, 64], [0, 64]]]


def tile(x, y, attention):
    ring = [[x, y], [x + 32, y], [x + 32, y + 32], [x, y + 32], [x, y]]
    return {"geometry": {"coordinates": [ring]}, "properties": {"measurements": {"attention": attention}}}


def test_dsa_annotation_has_a_heat_map_and_outlines():
    annotation = json.loads(dsa_annotation(RECORD, [tile(64, 0, 0.9), tile(0, 0, 0.1)], "top"))
    heat, *outlines = annotation["elements"]
    assert (heat["type"], heat["radius"]) == ("heatmap", 16)
    assert heat["points"] == [[80, 16, 0, 0.9], [16, 16, 0, 0.1]]
    assert [[point[:2] for point in outline["points"]] for outline in outlines] == SQUARES
    assert {(outline["type"], outline["closed"], outline["group"]) for outline in outlines} == {
        ("polyline", True, "top")
    }
    about = {"use": "research use only", "model": "wsi_mil", "prediction": RECORD["prediction"]}
    assert annotation["attributes"] == about


def test_asap_annotation_has_a_polygon_for_each_top_tile():
    root = ElementTree.fromstring(asap_annotation(RECORD, "top & more"))  # noqa: S314  (made here)
    polygons = root.findall("./Annotations/Annotation")
    corners = [[[int(c.get("X")), int(c.get("Y"))] for c in polygon.iter("Coordinate")] for polygon in polygons]
    assert corners == SQUARES
    assert {polygon.get("PartOfGroup") for polygon in polygons} == {group.get("Name") for group in root.iter("Group")}
    assert root.find("Annotations").get("Description") == "research use only"
