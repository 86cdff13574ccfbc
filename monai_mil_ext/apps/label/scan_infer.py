"""Inference task for scans, with class and slice scores as JSON and bands of slices as a label map."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.transforms import LoadImage

from monai_mil_ext.data import ScoreBands
from monai_mil_ext.transforms import SliceScoresToVolume
from monai_mil_ext.transforms.scans.slice_order import SliceOrder
from monai_mil_ext.utils import RESEARCH_USE

from ._monailabel import InferTask, Writer
from .bundle_runner import BundleRunner, device_override
from .errors import http_error, http_error_from
from .label_map import IRREGULAR, scan_result

__all__ = ["ScanInferTask"]

CASE = "scan"  # the file may be named after the patient
SAME_MM = 0.05  # largest distance of a slice from its row in a file of scores
EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".mha")


class ScanInferTask(InferTask):
    """Inference task that runs the ``inference`` of a bundle and turns its slice scores into a label map of bands.

    The JSON contains ``prediction`` (a score for each class, or the value, risk or survival of a task without classes),
    ``slices`` (index, position in mm, score and band of each), ``uncertainty`` (entropy of the class scores, 1 if all
    are equal, or null), ``predicted_class`` (at the threshold of the model, if its classes have names), ``top_slices``,
    ``plane``, ``notes`` (what was left out or changed when the scan was read), ``use``, ``trained_model`` (name,
    version and hash of the weights) and ``source_check`` (whether the scan is as in the
    training; another one is refused, unless ``site.yaml`` has ``allow_mismatch: true``). The label map has the voxels
    and the affine of the image, and is 0 in slices without a band.

    Args:
        bundle: bundle of scans, such as ``scan_mil``.
        bands: bands of slices.
    """

    def __init__(self, bundle: BundleRunner, bands: ScoreBands | None = None) -> None:
        self.bundle = bundle
        self.bands = bands or ScoreBands()
        labels = {name: number for number, name in enumerate(self.bands.names, 1)}
        description = f"{bundle.metadata['description']} {RESEARCH_USE}"
        # viewers list only models of this type
        super().__init__("segmentation", labels, 3, description, {"result_extension": list(EXTENSIONS)})

    def is_valid(self) -> bool:
        """Return whether the bundle has a trained network."""
        return self.bundle.weights.is_file()

    def get_path(self, validate: bool = True) -> str | None:
        """Return the path of the network that clients may download."""
        return str(self.bundle.weights) if self.is_valid() or not validate else None

    def __call__(self, request: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Return the file of the label map and the JSON for the image of ``request``."""
        begin, image = time.perf_counter(), request["image"]
        extension = _extension(request, image)
        record, scores = self._infer(image, device_override(request))
        result = scan_result(record, self.bundle.class_names, record["slices"], self.bands)
        file = None
        if request.get("result_write_to_file", True):
            file = _write(_label_map(result["slices"], record["plane"], scores), extension)
        names = {"model": self.bundle.name, "plane": record["plane"], "top_slices": record["top_slices"]}
        names["notes"] = record.get("notes", [])
        names |= {key: record[key] for key in ("predicted_class",) if key in record}
        trained = {"trained_model": record.get("model"), "source_check": record.get("source_check")}
        params = {**result, **names, **trained, "label_names": self.labels}
        return file, {**params, "latencies": {"total": round(time.perf_counter() - begin, 2)}}

    def _infer(self, image: str, device: Mapping[str, str]) -> tuple[dict[str, Any], MetaTensor]:
        item = {"image": image, "case_id": CASE}
        with TemporaryDirectory() as folder:
            try:
                self.bundle.infer(item, folder, "inference", dicom=[], **self.bundle.unseen(), **device)
            except Exception as error:
                raise http_error_from(error, image, folder, self.bundle.root) from error
            results = Path(folder) / CASE
            record = json.loads((results / "prediction.json").read_text("utf-8"))
            return record, LoadImage(image_only=True)(results / f"{CASE}_scores.nii.gz")


def _label_map(slices: Sequence[Mapping[str, Any]], plane: str, scores: MetaTensor) -> MetaTensor:
    index, band, position = (
        np.array([entry[name] for entry in slices]) for name in ("slice_index", "band", "position_mm")
    )
    rows = SliceOrder.of(scores.affine, plane).positions(scores.affine.double(), scores.shape).numpy()
    if index.max() >= len(rows) or abs(rows[index] - position).max() > SAME_MM:
        raise http_error(IRREGULAR)  # its scores are on a grid whose rows are not its slices
    return SliceScoresToVolume(plane)(band, index, scores.affine, scores.shape)


def _extension(request: Mapping[str, Any], image: str) -> str:
    """Return the extension of the label map: that of the request, that of the image, or NIfTI."""
    extension = request.get("result_extension")
    extension = extension[0] if isinstance(extension, (list, tuple)) and extension else extension
    if extension:
        if extension not in EXTENSIONS:
            raise http_error(f"`result_extension` must be one of {', '.join(EXTENSIONS)}, got {str(extension)!r}.")
        return str(extension)
    return next((ending for ending in EXTENSIONS if image.lower().endswith(ending)), EXTENSIONS[0])


def _write(labels: MetaTensor, extension: str) -> str:
    # nibabel, because ITK refuses the affine of a tilted gantry
    writer = Writer(label="pred", nibabel=True)
    file, _ = writer({"pred": labels[0], "result_extension": extension, "result_dtype": np.uint8})
    return str(file)
