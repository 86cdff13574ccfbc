"""Saves the answer to a scan: its probability, a score for every slice, the score volume, pictures and DICOM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor

from monai_mil_ext.data import DicomResults, SliceBands, write_volume
from monai_mil_ext.transforms import SliceScoresToVolume
from monai_mil_ext.utils import RESEARCH_USE, BagKeys, atomic_path, check_choice, check_name, write_json
from monai_mil_ext.visualize import plot_slice_scores, scan_page, write_cine

__all__ = ["ScanResultsSaver"]

PER_SLICE = (BagKeys.ATTENTION, BagKeys.POSITION, BagKeys.SLICE_INDEX)
PICTURES, DICOM = ("png", "html", "gif"), ("seg", "sr")


class ScanResultsSaver:
    """Writes ``<case_id>.json``, ``<case_id>_scores.nii.gz`` and pictures of every scan that an engine infers.

    It reads decollated items of one scan each: ``pred`` (C,) probabilities, ``attention`` (N,) or (N, A) whose mean
    over A is the score of a slice, ``position``, ``slice_index``, ``affine`` and ``spatial_shape`` as
    :py:class:`monai_mil_ext.transforms.SliceBagd` leaves them, the slices themselves, and a reference mask where
    there is one. Nothing else of the scan is written: no name, no date, no path.

    Results as DICOM, ``<case_id>_seg.dcm`` and ``<case_id>_sr.dcm``, are another matter: they belong to the study of
    the scan and **carry its patient**, see :py:class:`monai_mil_ext.data.DicomResults`. They are off by default, and
    need the folder of the series as item ``source`` (and ``series``, where it has several).

    The JSON file comes last: where it is, all others are.

    Args:
        output_dir: folder of the files; each is replaced as a whole.
        plane: of the slices, see :py:class:`monai_mil_ext.transforms.SliceBagd`.
        slices_key: item with the slices (N, 1, h, w) in [0, 1].
        reference_key: item with the mask (N, 1, h, w) of what should be found.
        top_k: how many slices are shown and named; the DICOM segments are these, and twice as many after them.
        pictures: any of ``"png"``, ``"html"`` (one file that needs no other) and ``"gif"`` (slice after slice).
        dicom: any of ``"seg"`` (segmentation) and ``"sr"`` (measurement report).
        settings: fingerprint of network and preprocessing, for the JSON file.

    Raises:
        ValueError: when a case id can't be a file's name, or a scan has no series for results as DICOM.
    """

    def __init__(
        self,
        output_dir: str,
        plane: str = "axial",
        slices_key: str = "slices",
        reference_key: str = "reference",
        top_k: int = 4,
        pictures: Sequence[str] = ("png",),
        dicom: Sequence[str] = (),
        settings: str | None = None,
    ) -> None:
        for name, values, choices in (("pictures", pictures, PICTURES), ("dicom", dicom, DICOM)):
            for value in values:
                check_choice(name, value, choices)
        self.output_dir = Path(output_dir)
        self.plane = plane
        self.slices_key = slices_key
        self.reference_key = reference_key
        self.top_k = top_k
        self.pictures = tuple(pictures)
        self.dicom = tuple(dicom)
        self.settings = settings
        self._to_volume = SliceScoresToVolume(plane)

    def attach(self, engine: Engine) -> None:
        """Write after every iteration of ``engine``."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the files of the scans of this iteration."""
        for batch, output in zip(engine.state.batch, engine.state.output, strict=True):
            self.save({**batch, **output})
            engine.logger.info(f"{batch[BagKeys.CASE_ID]}: written to {self.output_dir.name}; {RESEARCH_USE}")

    def save(self, data: Mapping[str, Any]) -> None:
        """Write the files of one scan."""
        check_name(case_id=data[BagKeys.CASE_ID])
        item = self._without_padding(data)
        attention = item[BagKeys.ATTENTION].float()
        attention = attention.mean(-1) if attention.ndim == 2 else attention
        geometry = (item[BagKeys.SLICE_INDEX], item[BagKeys.AFFINE], item[BagKeys.SPATIAL_SHAPE])
        volume = self._to_volume(attention, *geometry)
        if self.dicom:
            self._save_dicom(item, volume)
        path = self._path(item, "_scores.nii.gz")
        write_volume(path, volume, f"attention of slices; {RESEARCH_USE}")
        self._save_pictures(item, attention)
        write_json(self.answer_file(item[BagKeys.CASE_ID]), self._answer(item, attention))

    def answer_file(self, case_id: str) -> Path:
        """Where the answer to a scan is; where it is, all its other files are."""
        return self.output_dir / f"{case_id}.json"

    def _path(self, item: Mapping[str, Any], ending: str) -> Path:
        return self.output_dir / f"{item[BagKeys.CASE_ID]}{ending}"

    def _save_dicom(self, item: Mapping[str, Any], volume: MetaTensor) -> None:
        if "source" not in item:
            raise ValueError(f"an item must have the `source` of its scan for results as DICOM, got {sorted(item)}.")
        results = DicomResults(item["source"], item.get("series"))
        if "seg" in self.dicom:
            bands = SliceBands(top_k=(self.top_k, 3 * self.top_k))
            results.write_segmentation(self._path(item, "_seg.dcm"), volume, bands)
        if "sr" in self.dicom:
            results.write_report(self._path(item, "_sr.dcm"), volume, float(item["pred"][-1]), self.top_k)

    def _save_pictures(self, item: Mapping[str, Any], attention: torch.Tensor) -> None:
        reference = item.get(self.reference_key)
        masks = None if reference is None else reference[:, 0].numpy() > 0
        scan = (attention.numpy(), item[BagKeys.POSITION].numpy(), item[self.slices_key][:, 0].numpy(), masks)
        title = f"{item[BagKeys.CASE_ID]}: probability {float(item['pred'][-1]):.2f}"
        if "png" in self.pictures:
            with atomic_path(self._path(item, ".png")) as temporary:
                plot_slice_scores(*scan, self.top_k, title).savefig(temporary, dpi=160)
        if "html" in self.pictures:
            with atomic_path(self._path(item, ".html")) as temporary:
                temporary.write_text(scan_page(*scan, self.top_k, title), encoding="utf-8")
        if "gif" in self.pictures:
            write_cine(self._path(item, ".gif"), *scan)

    def _without_padding(self, item: Mapping[str, Any]) -> dict[str, Any]:
        per_instance = {*PER_SLICE, self.slices_key, self.reference_key}
        mask = item.get(BagKeys.MASK, slice(None))
        return {
            k: (v.detach()[mask] if k in per_instance else v.detach()).cpu() if isinstance(v, torch.Tensor) else v
            for k, v in item.items()
        }

    def _answer(self, item: Mapping[str, Any], attention: torch.Tensor) -> dict[str, Any]:
        columns = zip(
            item[BagKeys.SLICE_INDEX].tolist(), item[BagKeys.POSITION].tolist(), attention.tolist(), strict=True
        )
        slices = [{"slice_index": i, "position_mm": round(p, 3), "attention": a} for i, p, a in columns]
        return {
            "case_id": item[BagKeys.CASE_ID],
            "use": RESEARCH_USE,
            **({} if self.settings is None else {"settings": self.settings}),
            "probability": item["pred"].tolist(),
            "prediction": int(item["pred"].argmax()),
            "plane": self.plane,
            "top_slices": [int(i) for i in np.argsort(-attention.numpy(), kind="stable")[: self.top_k]],
            "slices": slices,
        }
