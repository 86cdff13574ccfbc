"""Answers to a slide, from one pass over it: JSON, GeoJSON, ASAP's XML, the annotation of a Digital Slide Archive."""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import Any

from monai_mil_ext.data import is_feature_file
from monai_mil_ext.utils import RESEARCH_USE

from .devices import device_override
from .refusal import refusal, refusal_of
from .served_bundle import ServedBundle
from .server_parts import InferTask
from .slide_annotations import asap_annotation, dsa_annotation
from .uncertainty import normalized_entropy

__all__ = ["SlideAnswer"]

CASE = "slide"  # the file of a patient may be called after him
TOP = "tiles of the highest attention"
SUFFIXES = {"dsa": ".json", "asap": ".xml", "geojson": ".geojson", "tiff": ".tif"}


class SlideAnswer(InferTask):
    """Answers with what the bundle's own ``inference`` gives for the whole slide, whatever region a viewer shows.

    The JSON is the verdict of the bundle with ``prediction`` (a score for every class) and ``uncertainty``. The file is
    what ``output`` asks for, ``"dsa"`` (default) or ``"asap"``, or ``result_format`` among the parameters of the
    request, which knows ``"geojson"`` (every tile, for QuPath) and ``"tiff"`` (the map as a pyramid) too.

    Args:
        bundle: of slides, as ``wsi_mil``.
    """

    def __init__(self, bundle: ServedBundle) -> None:
        self.bundle = bundle
        description = f"{bundle.metadata['description']} {RESEARCH_USE}"
        super().__init__("classification", {TOP: 1}, 2, description, {"result_format": list(SUFFIXES)})

    def is_valid(self) -> bool:
        """Whether there is a trained network."""
        return self.bundle.weights.is_file()

    def get_path(self, validate: bool = True) -> str | None:
        """Where the network is that clients may download."""
        return str(self.bundle.weights) if self.is_valid() or not validate else None

    def __call__(self, request: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Give the file and the JSON for the slide of ``request``."""
        begin, image, kind = time.perf_counter(), request["image"], _kind(request)
        with TemporaryDirectory() as folder:
            self._ask(image, folder, device_override(request))
            place = Path(folder) / CASE
            told = self._params(json.loads((place / "verdict.json").read_text("utf-8")))
            file = _file(kind, place, told) if kind else None
        return file, {**told, "latencies": {"total": round(time.perf_counter() - begin, 2)}}

    def _ask(self, image: str, folder: str, device: Mapping[str, str]) -> None:
        pixels = [] if is_feature_file(image) else ["slides"]
        options = {"input": image, "case_id": CASE, "output_dir": folder, **device}
        try:
            self.bundle.run("infer", "inference", *pixels, **options)
        except Exception as error:
            reason = _reason(Path(folder) / "results.csv")
            if reason:
                raise refusal(reason) from error
            raise refusal_of(error, image, folder, self.bundle.root) from error

    def _params(self, verdict: Mapping[str, Any]) -> dict[str, Any]:
        scores = verdict["probability"]
        names = verdict.get("class_names") or self.bundle.class_names
        names = names if len(names) == len(scores) else [str(number) for number in range(len(scores))]
        prediction = [
            {"idx": i, "label": name, "score": score} for i, (name, score) in enumerate(zip(names, scores, strict=True))
        ]
        added = {"model": self.bundle.name, "prediction": prediction, "uncertainty": normalized_entropy(scores)}
        return {**{k: v for k, v in verdict.items() if k != "settings"}, **added, "label_names": self.labels}


def _kind(request: Mapping[str, Any]) -> str | None:
    """Of the file; None for no file."""
    if request.get("output") == "json" or not request.get("result_write_to_file", True):
        return None
    kind = request.get("result_format") or request.get("output") or "dsa"
    kind = kind[0] if isinstance(kind, (list, tuple)) else kind
    if kind not in SUFFIXES:
        raise refusal(f"`result_format` must be one of {', '.join(SUFFIXES)}, got {str(kind)!r}.")
    return str(kind)


def _reason(table: Path) -> str:
    """Why the bundle gave no answer, as it told itself."""
    if not table.is_file():
        return ""
    with table.open(newline="", encoding="utf-8") as lines:
        return next((row["status"] for row in csv.DictReader(lines)), "")


def _file(kind: str, place: Path, told: Mapping[str, Any]) -> str:
    tiles = place / f"{CASE}.geojson"
    if not tiles.is_file():
        raise refusal(f"the slide has no map: {told.get('map', {}).get('missing')}.")
    with NamedTemporaryFile(suffix=SUFFIXES[kind], delete=False) as target:
        pass
    if kind == "asap":
        Path(target.name).write_text(asap_annotation(told, TOP), encoding="utf-8")
    elif kind == "dsa":
        features = json.loads(tiles.read_text("utf-8"))["features"]
        Path(target.name).write_text(dsa_annotation(told, features, TOP), encoding="utf-8")
    else:
        shutil.copyfile(place / f"{CASE}{SUFFIXES[kind]}", target.name)
    return target.name
