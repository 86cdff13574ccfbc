"""Saver of the results of scans: probability, a score for every slice, the score volume, pictures and DICOM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_mil_ext.data import DicomWriter, ScoreBands, write_nifti
from monai_mil_ext.utils import RESEARCH_USE, BagKeys, atomic_path, check_choice, drop_padding, write_json
from monai_mil_ext.visualize import plot_slice_scores, scan_page, write_cine

from .results_saver import ResultsSaver

__all__ = ["ScanResultsSaver"]

PICTURES, DICOM = ("png", "html", "gif"), ("seg", "sr")


class ScanResultsSaver(ResultsSaver):
    """Saver that writes a folder ``<output_dir>/<case_id>`` for every scan.

    =========================== ============================================================================
    ``prediction.json``         probabilities, and the position and score of every slice; written last
    ``<case_id>_scores.nii.gz`` the scores in the voxels of the scan; ``.json`` beside it names their model
    ``<case_id>.png``           the scores and the slices with the highest ones; also ``.html`` and ``.gif``
    ``<case_id>_seg.dcm``       results as DICOM, off by default; also ``_sr.dcm``
    =========================== ============================================================================

    It reads decollated items of one scan each: ``pred`` (C,) probabilities, ``scores`` (N,) of
    :py:class:`monai_mil_ext.transforms.InstanceScoresd`, ``top`` of
    :py:class:`monai_mil_ext.transforms.RankInstancesd`, ``score_volume`` (1, X, Y, Z) of
    :py:class:`monai_mil_ext.transforms.SliceScoresToVolumed`, ``position`` and ``slice_index`` of
    :py:class:`monai_mil_ext.transforms.SliceBagd`, the slices themselves, and a reference mask if present.
    No name, date or path is written.

    Results as DICOM belong to the study of the scan and **carry its patient**, see
    :py:class:`monai_mil_ext.data.DicomWriter`. They need the folder of the series as item ``source`` (and ``series``,
    if it has several).

    Args:
        output_dir: parent of the folders.
        plane: plane of the slices, see :py:class:`monai_mil_ext.transforms.SliceBagd`.
        slices_key: item with the slices (N, 1, h, w) in [0, 1].
        reference_key: item with the reference mask (N, 1, h, w).
        pictures: any of ``"png"``, ``"html"`` (one self-contained file) and ``"gif"`` (an animation of all slices).
            They show as many slices as ``top`` has.
        dicom: any of ``"seg"`` (segmentation: the slices of ``top``, and twice as many that rank after them) and
            ``"sr"`` (measurement report).
        settings: fingerprint of network and preprocessing, for ``prediction.json``.
        model: name, version and hash of the model, see :py:meth:`monai_mil_ext.apps.bundle.TrainedModel.identity`.
        class_names: names of the C classes.

    Raises:
        ValueError: when an option is not allowed, a case id can't be a file name, ``class_names`` and classes differ in
            number, or a scan has no series for results as DICOM.
    """

    endings = ("_scores.nii.gz", "_scores.json", ".png", ".html", ".gif", "_seg.dcm", "_sr.dcm")
    choices = PICTURES

    def __init__(
        self,
        output_dir: str,
        plane: str = "axial",
        slices_key: str = "slices",
        reference_key: str = "reference",
        pictures: Sequence[str] = ("png",),
        dicom: Sequence[str] = (),
        settings: str | None = None,
        model: Mapping[str, Any] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(output_dir, pictures, settings, model)
        for value in dicom:
            check_choice("dicom", value, DICOM)
        self.plane = plane
        self.slices_key = slices_key
        self.reference_key = reference_key
        self.dicom = tuple(dicom)
        self.class_names = None if class_names is None else tuple(map(str, class_names))

    def _write(self, folder: Path, item: Mapping[str, Any]) -> dict[str, Any]:
        keys = (BagKeys.SCORES, BagKeys.POSITION, BagKeys.SLICE_INDEX, self.slices_key, self.reference_key)
        item = {**item, **{str(key): drop_padding(item[key], item) for key in keys if key in item}}
        classes = self._class_record(item)
        if self.dicom:
            self._write_dicom(folder, item)
        path = folder / f"{item[BagKeys.CASE_ID]}_scores.nii.gz"
        write_nifti(path, item[BagKeys.SCORE_VOLUME], f"attention of slices; {RESEARCH_USE}")
        about = {"content": "attention of slices", "use": RESEARCH_USE, **self.provenance(item), **classes}
        write_json(folder / f"{item[BagKeys.CASE_ID]}_scores.json", about)
        self._write_pictures(folder, item)
        index = item[BagKeys.SLICE_INDEX]
        columns = zip(index.tolist(), item[BagKeys.POSITION].tolist(), item[BagKeys.SCORES].tolist(), strict=True)
        return {
            **classes,
            "plane": self.plane,
            "top_slices": index[item[BagKeys.TOP]].tolist(),
            "slices": [{"slice_index": i, "position_mm": round(p, 3), "attention": a} for i, p, a in columns],
        }

    def _class_record(self, item: Mapping[str, Any]) -> dict[str, Any]:
        names = self.class_names
        if names is None:
            return {}
        if len(names) != len(item["pred"]):
            raise ValueError(f"`class_names` must be one for each of {len(item['pred'])} classes, got {list(names)}.")
        return {"class_names": list(names), "predicted_class": names[int(item["pred"].argmax())]}

    def _write_dicom(self, folder: Path, item: Mapping[str, Any]) -> None:
        if BagKeys.SOURCE not in item:
            raise ValueError(f"an item must have the `source` of its scan for results as DICOM, got {sorted(item)}.")
        case, volume, top_k = item[BagKeys.CASE_ID], item[BagKeys.SCORE_VOLUME], len(item[BagKeys.TOP])
        finding = {} if self.class_names is None else {"finding": self.class_names[-1]}
        source, series = item[BagKeys.SOURCE], item.get(BagKeys.SERIES)
        results = DicomWriter(source, series, self.model, self.note(item), **finding)
        if "seg" in self.dicom:
            bands = ScoreBands(top_k=(top_k, 3 * top_k))
            results.write_segmentation(folder / f"{case}_seg.dcm", volume, bands)
        if "sr" in self.dicom:
            results.write_report(folder / f"{case}_sr.dcm", volume, float(item["pred"][-1]), top_k)

    def _write_pictures(self, folder: Path, item: Mapping[str, Any]) -> None:
        case, top_k, reference = item[BagKeys.CASE_ID], len(item[BagKeys.TOP]), item.get(self.reference_key)
        masks = None if reference is None else reference[:, 0].numpy() > 0
        scores, position = item[BagKeys.SCORES].numpy(), item[BagKeys.POSITION].numpy()
        scan = (scores, position, item[self.slices_key][:, 0].numpy(), masks)
        name = "" if self.class_names is None else f" of {self.class_names[-1]}"
        title, note = f"{case}: probability{name} {float(item['pred'][-1]):.2f}", self.note(item)
        if "png" in self.pictures:
            with atomic_path(folder / f"{case}.png") as temporary:
                plot_slice_scores(*scan, top_k, title, note).savefig(temporary, dpi=160)
        if "html" in self.pictures:
            with atomic_path(folder / f"{case}.html") as temporary:
                facts = {"model": note} if note else {}
                temporary.write_text(scan_page(*scan, top_k, title, facts), encoding="utf-8")
        if "gif" in self.pictures:
            write_cine(folder / f"{case}.gif", *scan, note=note)
