"""Inference task for slides, with JSON, GeoJSON, the XML of ASAP or an annotation of the Digital Slide Archive."""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import Any

from monai_mil_ext.data.cohorts.case_lists import is_feature_file
from monai_mil_ext.handlers.savers.batch_inference import NOT_REACHED
from monai_mil_ext.utils import RESEARCH_USE

from ._monailabel import InferTask
from .bundle_runner import BundleRunner, device_override
from .errors import http_error, http_error_from
from .output_scores import output_scores
from .server.request_files import request_folder
from .slide_annotations import asap_annotation, dsa_annotation

__all__ = ["SlideInferTask"]

CASE = "slide"  # the file may be named after the patient
HASHES = ("settings", "input", "options")  # by which a later run knows its own results
TOP = "tiles of the highest attention"
SUFFIXES = {"dsa": ".json", "asap": ".xml", "geojson": ".geojson", "tiff": ".tif"}


class SlideInferTask(InferTask):
    """Inference task that runs the ``inference`` of a bundle on the whole slide, whatever region a viewer shows.

    The JSON is the ``prediction.json`` of the bundle, with ``prediction`` (a score for each class, or the values of a
    task without classes) and ``uncertainty``. The format of the file is the ``output`` of the request, ``"dsa"``
    (default) or ``"asap"``, or its parameter ``result_format``, which may also be ``"geojson"`` (all tiles, for QuPath)
    or ``"tiff"`` (the heat map as a pyramid).

    Args:
        bundle: bundle of slides, such as ``wsi_mil``.
    """

    def __init__(self, bundle: BundleRunner) -> None:
        self.bundle = bundle
        description = f"{bundle.metadata['description']} {RESEARCH_USE}"
        super().__init__("classification", {TOP: 1}, 2, description, {"result_format": list(SUFFIXES)})

    def is_valid(self) -> bool:
        """Return whether the bundle has a trained network."""
        return self.bundle.weights.is_file()

    def get_path(self, validate: bool = True) -> str | None:
        """Return the path of the network that clients may download."""
        return str(self.bundle.weights) if self.is_valid() or not validate else None

    def __call__(self, request: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Return the file and the JSON for the slide of ``request``."""
        begin, image, kind = time.perf_counter(), request["image"], _kind(request)
        with TemporaryDirectory() as folder:
            self._infer(image, folder, device_override(request))
            results = Path(folder) / CASE
            params = self._params(json.loads((results / "prediction.json").read_text("utf-8")))
            file = _file(kind, results, params) if kind else None
        return file, {**params, "latencies": {"total": round(time.perf_counter() - begin, 2)}}

    def _infer(self, image: str, folder: str, device: Mapping[str, str]) -> None:
        configs = ["inference"] if is_feature_file(image) else ["inference", "slides"]
        try:
            self.bundle.infer({"image": image, "case_id": CASE}, folder, *configs, **self.bundle.unseen(), **device)
        except Exception as error:
            reason = _reason(Path(folder) / "results.csv")
            if reason:
                raise http_error(reason) from error
            raise http_error_from(error, image, folder, self.bundle.root) from error

    def _params(self, record: Mapping[str, Any]) -> dict[str, Any]:
        added = {"model": self.bundle.name, **output_scores(record, self.bundle.class_names)}
        added |= {"trained_model": record["model"]} if "model" in record else {}
        return {**{k: v for k, v in record.items() if k not in HASHES}, **added, "label_names": self.labels}


def _kind(request: Mapping[str, Any]) -> str | None:
    """Return the format of the file, or None for no file."""
    if request.get("output") == "json" or not request.get("result_write_to_file", True):
        return None
    kind = request.get("result_format") or request.get("output") or "dsa"
    kind = kind[0] if isinstance(kind, (list, tuple)) else kind
    if kind not in SUFFIXES:
        raise http_error(f"`result_format` must be one of {', '.join(SUFFIXES)}, got {str(kind)!r}.")
    return str(kind)


def _reason(table: Path) -> str:
    """Return the reason why the slide failed from the table of the bundle; empty if the failure is another."""
    if not table.is_file():
        return ""
    with table.open(newline="", encoding="utf-8") as lines:
        return next((row["status"] for row in csv.DictReader(lines) if row["status"] != NOT_REACHED), "")


def _file(kind: str, results: Path, params: Mapping[str, Any]) -> str:
    tiles = results / f"{CASE}.geojson"
    if not tiles.is_file():
        raise http_error(f"the slide has no heat map: {params.get('map', {}).get('missing')}.")
    with NamedTemporaryFile(suffix=SUFFIXES[kind], dir=request_folder(), delete=False) as target:
        pass
    if kind == "asap":
        Path(target.name).write_text(asap_annotation(params, TOP), encoding="utf-8")
    elif kind == "dsa":
        features = json.loads(tiles.read_text("utf-8"))["features"]
        Path(target.name).write_text(dsa_annotation(params, features, TOP), encoding="utf-8")
    else:
        shutil.copyfile(results / f"{CASE}{SUFFIXES[kind]}", target.name)
    return target.name
