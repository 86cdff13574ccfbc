"""Answers to a scan: class and slice scores as JSON, and bands of slices as a label map that viewers show."""

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

from monai_mil_ext.data import SliceBands
from monai_mil_ext.transforms import SliceScoresToVolume
from monai_mil_ext.utils import RESEARCH_USE

from .devices import device_override
from .refusal import refusal, refusal_of
from .served_bundle import ServedBundle
from .server_parts import InferTask, Writer
from .slice_view import scan_result

__all__ = ["ScanAnswer"]

CASE = "scan"  # the file of a patient may be called after him
EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".mha")


class ScanAnswer(InferTask):
    """Answers with what the bundle's own ``inference`` gives, and bands its slice scores into a label map.

    The JSON has ``prediction`` (a score for every class), ``slices`` (number, place in mm, score and band of each),
    ``uncertainty`` (entropy of the class scores, 1 where all are equal), ``top_slices``, ``plane`` and ``use``. The
    label map has the voxels and the affine of the image: 0 where a slice is in no band.

    Args:
        bundle: of scans, as ``ct_slice_mil``.
        bands: which slices stand out.
    """

    def __init__(self, bundle: ServedBundle, bands: SliceBands | None = None) -> None:
        self.bundle = bundle
        self.bands = bands or SliceBands()
        labels = {name: number for number, name in enumerate(self.bands.names, 1)}
        description = f"{bundle.metadata['description']} {RESEARCH_USE}"
        # viewers list models of this type only
        super().__init__("segmentation", labels, 3, description, {"result_extension": list(EXTENSIONS)})

    def is_valid(self) -> bool:
        """Whether there is a trained network."""
        return self.bundle.weights.is_file()

    def get_path(self, validate: bool = True) -> str | None:
        """Where the network is that clients may download."""
        return str(self.bundle.weights) if self.is_valid() or not validate else None

    def __call__(self, request: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Give the file of the label map and the JSON for the image of ``request``."""
        begin, image = time.perf_counter(), request["image"]
        extension = _extension(request, image)
        answer, scores = self._ask(image, device_override(request))
        told = scan_result(answer["probability"], self.bundle.class_names, answer["slices"], self.bands)
        file = None
        if request.get("result_write_to_file", True):
            file = _write(_label_map(told["slices"], answer["plane"], scores), extension)
        named = {"model": self.bundle.name, "plane": answer["plane"], "top_slices": answer["top_slices"]}
        params = {**told, **named, "label_names": self.labels}
        return file, {**params, "latencies": {"total": round(time.perf_counter() - begin, 2)}}

    def _ask(self, image: str, device: Mapping[str, str]) -> tuple[dict[str, Any], MetaTensor]:
        with TemporaryDirectory() as folder:
            options = {"input": image, "case_id": CASE, "output_dir": folder, "pictures": [], "dicom": [], **device}
            try:
                self.bundle.run("infer", "inference", **options)
            except Exception as error:
                raise refusal_of(error, image, folder, self.bundle.root) from error
            answer = json.loads((Path(folder) / f"{CASE}.json").read_text("utf-8"))
            return answer, LoadImage(image_only=True)(Path(folder) / f"{CASE}_scores.nii.gz")


def _label_map(slices: Sequence[Mapping[str, Any]], plane: str, scores: MetaTensor) -> MetaTensor:
    index, band = (np.array([one[name] for one in slices]) for name in ("slice_index", "band"))
    return SliceScoresToVolume(plane)(band, index, scores.affine, scores.shape)


def _extension(request: Mapping[str, Any], image: str) -> str:
    """Of the label map: as asked, or that of the image, or NIfTI."""
    asked = request.get("result_extension")
    asked = asked[0] if isinstance(asked, (list, tuple)) and asked else asked
    if asked:
        if asked not in EXTENSIONS:
            raise refusal(f"`result_extension` must be one of {', '.join(EXTENSIONS)}, got {str(asked)!r}.")
        return str(asked)
    return next((ending for ending in EXTENSIONS if image.lower().endswith(ending)), EXTENSIONS[0])


def _write(labels: MetaTensor, extension: str) -> str:
    # nibabel: ITK refuses the affine of a tilted gantry
    writer = Writer(label="pred", nibabel=True)
    file, _ = writer({"pred": labels[0], "result_extension": extension, "result_dtype": np.uint8})
    return str(file)
