"""Annotations that slide viewers draw: those of a Digital Slide Archive, and ASAP's XML for QuPath."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from monai_mil_ext.utils import RESEARCH_USE

__all__ = ["asap_annotation", "dsa_annotation"]

COLOR = (230, 120, 0)
Record = Mapping[str, Any]
Features = Sequence[Mapping[str, Any]]


def dsa_annotation(record: Record, features: Features, group: str) -> str:
    """Return JSON with a heat map of all tiles, and the outlines of those of the highest attention.

    Args:
        record: with ``prediction``, ``top_tiles`` and ``tile_size``.
        features: of the GeoJSON of all tiles.
        group: name of the outlines.
    """
    half = record["tile_size"] / 2
    points = []
    for tile in features:
        x, y = tile["geometry"]["coordinates"][0][0]
        points.append([x + half, y + half, 0, tile["properties"]["measurements"]["attention"]])
    heat = {
        "type": "heatmap",
        "points": points,
        "radius": half,
        "colorRange": ["rgba(0,0,0,0)", "rgba(255,255,0,1)"],
        "rangeValues": [0, 1],
        "normalizeRange": True,
        "group": "attention",
    }
    color = f"rgb({','.join(map(str, COLOR))})"
    outlines = [
        {
            "type": "polyline",
            "closed": True,
            "points": [[x, y, 0] for x, y in corners],
            "lineColor": color,
            "group": group,
            "label": {"value": group},
        }
        for corners in _squares(record)
    ]
    about = {"use": RESEARCH_USE, "model": record["model"], "prediction": record["prediction"]}
    return json.dumps(
        {"name": "attention", "description": RESEARCH_USE, "attributes": about, "elements": [heat, *outlines]}
    )


def asap_annotation(record: Record, group: str) -> str:
    """Return XML with a polygon for each tile of the highest attention; the format has no scores."""
    root = ElementTree.Element("ASAP_Annotations")
    attributes = {"Name": "attention", "Description": RESEARCH_USE, "Model": str(record["model"])}
    annotations = ElementTree.SubElement(root, "Annotations", attributes)
    color = "#{:02X}{:02X}{:02X}".format(*COLOR)
    for corners in _squares(record):
        attributes = {"Name": group, "Type": "Polygon", "PartOfGroup": group, "Color": color}
        annotation = ElementTree.SubElement(annotations, "Annotation", attributes)
        polygon = ElementTree.SubElement(annotation, "Coordinates")
        for order, (x, y) in enumerate(corners):
            ElementTree.SubElement(polygon, "Coordinate", {"Order": str(order), "X": str(x), "Y": str(y)})
    groups = ElementTree.SubElement(root, "AnnotationGroups")
    ElementTree.SubElement(groups, "Group", {"Name": group, "PartOfGroup": "None", "Color": color})
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def _squares(record: Record) -> list[list[tuple[float, float]]]:
    edge = record["tile_size"]
    corners = ((tile["x"], tile["y"]) for tile in record["top_tiles"])
    return [[(x, y), (x + edge, y), (x + edge, y + edge), (x, y + edge)] for x, y in corners]
