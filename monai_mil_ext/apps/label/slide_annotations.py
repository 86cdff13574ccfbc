"""What viewers of slides draw: the annotation of a Digital Slide Archive, and ASAP's XML for QuPath."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from monai_mil_ext.utils import RESEARCH_USE

__all__ = ["asap_annotation", "dsa_annotation"]

COLOUR = (230, 120, 0)
Verdict = Mapping[str, Any]
Features = Sequence[Mapping[str, Any]]


def dsa_annotation(verdict: Verdict, features: Features, group: str) -> str:
    """Give JSON with a heat map of all tiles, and the outlines of those of the highest attention.

    Args:
        verdict: with ``prediction``, ``top_tiles`` and ``tile_size``.
        features: of the GeoJSON of all tiles.
        group: what the outlines are called.
    """
    half = verdict["tile_size"] / 2
    points = []
    for one in features:
        x, y = one["geometry"]["coordinates"][0][0]
        points.append([x + half, y + half, 0, one["properties"]["measurements"]["attention"]])
    heat = {
        "type": "heatmap",
        "points": points,
        "radius": half,
        "colorRange": ["rgba(0,0,0,0)", "rgba(255,255,0,1)"],
        "rangeValues": [0, 1],
        "normalizeRange": True,
        "group": "attention",
    }
    colour = f"rgb({','.join(map(str, COLOUR))})"
    outlines = [
        {
            "type": "polyline",
            "closed": True,
            "points": [[x, y, 0] for x, y in corners],
            "lineColor": colour,
            "group": group,
            "label": {"value": group},
        }
        for corners in _squares(verdict)
    ]
    about = {"use": RESEARCH_USE, "model": verdict["model"], "prediction": verdict["prediction"]}
    return json.dumps(
        {"name": "attention", "description": RESEARCH_USE, "attributes": about, "elements": [heat, *outlines]}
    )


def asap_annotation(verdict: Verdict, group: str) -> str:
    """Give XML with a polygon for each tile of the highest attention; it has no place for scores."""
    root = ElementTree.Element("ASAP_Annotations")
    told = {"Name": "attention", "Description": RESEARCH_USE, "Model": str(verdict["model"])}
    where = ElementTree.SubElement(root, "Annotations", told)
    colour = "#{:02X}{:02X}{:02X}".format(*COLOUR)
    for corners in _squares(verdict):
        named = {"Name": group, "Type": "Polygon", "PartOfGroup": group, "Color": colour}
        place = ElementTree.SubElement(ElementTree.SubElement(where, "Annotation", named), "Coordinates")
        for order, (x, y) in enumerate(corners):
            ElementTree.SubElement(place, "Coordinate", {"Order": str(order), "X": str(x), "Y": str(y)})
    groups = ElementTree.SubElement(root, "AnnotationGroups")
    ElementTree.SubElement(groups, "Group", {"Name": group, "PartOfGroup": "None", "Color": colour})
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def _squares(verdict: Verdict) -> list[list[tuple[float, float]]]:
    edge = verdict["tile_size"]
    corners = ((tile["x"], tile["y"]) for tile in verdict["top_tiles"])
    return [[(x, y), (x + edge, y), (x + edge, y + edge), (x, y + edge)] for x, y in corners]
