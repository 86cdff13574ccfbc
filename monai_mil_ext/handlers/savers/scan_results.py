"""Saver of the results of scans: probability, a score for every slice, the score volume, pictures and DICOM."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_mil_ext.data import DicomArchive, DicomWriter, NotStoredError, ScanResult, write_nifti
from monai_mil_ext.data.scans.results.scan_result import POSITIVE
from monai_mil_ext.transforms import SliceScoresToVolumed
from monai_mil_ext.transforms.bags.input_facts import input_facts
from monai_mil_ext.transforms.scans.slice_order import item_plane
from monai_mil_ext.utils import (
    RESEARCH_USE,
    BagKeys,
    BagStatus,
    atomic_path,
    check_choice,
    drop_padding,
    hide_paths,
    optional_dependency,
    write_json,
)
from monai_mil_ext.utils.probabilities import WITHOUT_CLASSES
from monai_mil_ext.visualize import (
    SliceDisplay,
    attention_ratio,
    is_nearly_even,
    plot_slice_scores,
    remove_viewer,
    scan_page,
    write_cine,
    write_scan_viewer,
)

from .instance_set import INSTANCE_SET, set_label
from .results_saver import ResultsSaver

__all__ = ["ScanResultsSaver"]

FigureCanvas = optional_dependency("figures", "matplotlib.backends.backend_agg", "FigureCanvasAgg")
DPI = 160
PICTURES, DICOM = ("png", "html", "gif", "viewer", "viewer-full"), ("seg", "sr", "ko", "sc")
CHOSEN = "chosen"  # key of the volume of the slices that hold a lesion with a stated probability
LINKS = {
    "attention in the voxels of the scan (NIfTI)": "_scores.nii.gz",
    "segmentation (DICOM SEG)": "_seg.dcm",
    "report (DICOM SR)": "_sr.dcm",
    "top slices (DICOM key objects)": "_ko.dcm",
    "picture (DICOM secondary capture)": "_sc.dcm",
    "animation (GIF)": ".gif",
    "picture (PNG)": ".png",
}


class ScanResultsSaver(ResultsSaver):
    """Saver that writes a folder ``<output_dir>/<case_id>`` for every scan.

    =========================== ============================================================================
    ``prediction.json``         probabilities, and numbers, position and attention of every slice; written last
    ``<case_id>_scores.nii.gz`` attention in the voxels of the scan; ``.json`` beside it names their model
    ``<case_id>.png``           slices, views of the stack and attention; also ``.html`` and ``.gif``
    ``viewer/index.html``       page of all slices that opens from disk, in a folder with its files
    ``<case_id>_seg.dcm``       results as DICOM, off by default; also ``_sr.dcm``, ``_ko.dcm``, ``_sc.dcm``
    =========================== ============================================================================

    It reads decollated items of one scan each: ``pred`` (C,) probabilities, ``scores`` (N,) of
    :py:class:`monai_mil_ext.transforms.InstanceScoresd`, ``top`` of
    :py:class:`monai_mil_ext.transforms.RankInstancesd`, ``score_volume`` (1, X, Y, Z) of
    :py:class:`monai_mil_ext.transforms.SliceScoresToVolumed`, ``position`` and ``slice_index`` of
    :py:class:`monai_mil_ext.transforms.SliceBagd`, the slices themselves, and a reference mask if present.
    No name, date or path is written.

    In ``prediction.json`` each slice has its ``slice_index`` (0 is the lowest slice), the ``slice_number`` of pictures
    (1 is the lowest), ``instance_number`` if DICOM tells it, ``position_mm``, ``attention``, and ``ratio``: attention
    relative to uniform attention. ``nearly_even`` is true if no ratio reaches 1.5, so that the order of slices says
    little: then pictures rank none. Colors of pictures are those of the ratio, from 1/4 to 4.

    Results as DICOM belong to the study of the scan and **carry its patient**, see
    :py:class:`monai_mil_ext.data.DicomWriter`. They need the folder of the series as item ``source`` (and ``series``,
    if it has several). Where they can't be written, all other files are, and ``prediction.json`` has the reason; its
    ``status`` is ``"done; not written as DICOM: <reason>"``. After ``send_to``, an archive gets them; where it does
    not store them all, the files stay, and ``status`` is ``"done; not sent: <reason>"``.

    Args:
        output_dir: parent of the folders.
        plane: plane of the slices; by default the item ``plane`` of :py:class:`monai_mil_ext.transforms.SliceBagd`, or
            else axial.
        slices_key: item with the slices (N, C, h, w); pictures show the middle channel, which with neighbors as
            channels is the slice itself. Values outside of [0, 1] are scaled for the pictures, which say so.
        reference_key: item with the reference mask (N, C, h, w).
        pictures: any of ``"png"``, ``"html"`` (one self-contained file), ``"gif"`` (an animation of all slices), and
            ``"viewer"`` (a folder below 5 MB) or ``"viewer-full"`` (with all pixels of the slices), see
            :py:func:`monai_mil_ext.visualize.write_scan_viewer`. They show as many slices as ``top`` has.
        dicom: any of ``"seg"`` (segmentation: the slices of ``top``, and twice as many that rank after them), ``"sr"``
            (measurement report), ``"ko"`` (key object selection of the slices of ``top``) and ``"sc"`` (the picture as
            secondary capture).
        settings: fingerprint of network and preprocessing, for ``prediction.json``.
        model: name, version and hash of the model, see :py:meth:`monai_mil_ext.apps.bundle.TrainedModel.identity`.
        class_names: names of the C classes.
        task: see :py:class:`monai_mil_ext.transforms.BagProbabilities`.

    Raises:
        ValueError: when an option is not allowed, a case id can't be a file name, ``class_names`` and classes differ in
            number, or ``plane`` is not that of an item.
        RuntimeError: at the end of a run, when results as DICOM could not be written or sent.
    """

    endings = ("_scores.nii.gz", "_scores.json", ".png", ".html", ".gif", "_seg.dcm", "_sr.dcm", "_ko.dcm", "_sc.dcm")
    choices = PICTURES
    names = ("slice", "scan")

    def __init__(
        self,
        output_dir: str,
        plane: str | None = None,
        slices_key: str = "slices",
        reference_key: str = "reference",
        pictures: Sequence[str] = ("png",),
        dicom: Sequence[str] = (),
        settings: str | None = None,
        model: Mapping[str, Any] | None = None,
        class_names: Sequence[str] | None = None,
        task: str = "classification",
    ) -> None:
        super().__init__(output_dir, pictures, settings, model, class_names, task)
        for value in dicom:
            check_choice("dicom", value, DICOM)
            DicomWriter.check_installed()  # so that a missing package is said before the first case
        if "sr" in dicom and task in WITHOUT_CLASSES:
            raise ValueError(f"`dicom` must be without 'sr', the probability of a class, for {task}, got {[*dicom]}.")
        self.plane = plane
        self.slices_key = slices_key
        self.reference_key = reference_key
        self.dicom = tuple(dicom)
        self.archive: DicomArchive | None = None

    def send_to(self, url: str | None) -> ScanResultsSaver:
        """Send the results as DICOM to the archive at ``url`` (DICOMweb), or to none, and return this saver.

        Raises:
            ValueError: when no result is written as DICOM, or ``url`` is no address, see
                :py:class:`monai_mil_ext.data.DicomArchive`.
        """
        if url and not self.dicom:
            raise ValueError("`dicom` must have what is sent to an archive, got [].")
        self.archive = DicomArchive(url) if url else None
        return self

    def _write(self, folder: Path, item: Mapping[str, Any]) -> dict[str, Any]:
        numbers = (BagKeys.SLICE_INDEX, BagKeys.INSTANCE_NUMBER)
        keys = (BagKeys.SCORES, BagKeys.POSITION, *numbers, self.slices_key, self.reference_key)
        item = {**item, **{str(key): drop_padding(item[key], item) for key in keys if item.get(key) is not None}}
        plane = item_plane(item, self.plane)
        path = folder / f"{item[BagKeys.CASE_ID]}_scores.nii.gz"
        write_nifti(path, item[BagKeys.SCORE_VOLUME], f"attention of slices; {RESEARCH_USE}")
        about = {"content": "attention of slices", "use": RESEARCH_USE, **self.provenance(item), **self.classes(item)}
        write_json(folder / f"{item[BagKeys.CASE_ID]}_scores.json", about)
        files, missing = self._dicom_files(folder, item)
        self._write_pictures(folder, item)
        dicom = {"missing": missing} if missing else self._sent(files)
        return {
            **({"dicom": dicom} if dicom else {}),
            "plane": plane,
            **({"window": item[BagKeys.WINDOW]} if BagKeys.WINDOW in item else {}),
            "top_slices": item[BagKeys.SLICE_INDEX][item[BagKeys.TOP]].tolist(),
            "nearly_even": is_nearly_even(item[BagKeys.SCORES]),
            "slices": self._slices(item),
        }

    def discard(self, case_id: str) -> None:
        """Remove the files of a case that this or an earlier run has written, and its viewer."""
        super().discard(case_id)
        remove_viewer(self.output_dir / case_id)

    def instance_set(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Return the set of slices, with their ``slice_numbers``."""
        entry = super().instance_set(item)
        if entry.get("indices"):
            index = drop_padding(item[BagKeys.SLICE_INDEX], item)
            entry["slice_numbers"] = sorted((index[entry["indices"]] + 1).tolist())
        return entry

    def _slices(self, item: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return what ``prediction.json`` says of each slice."""
        columns = {
            "slice_index": item[BagKeys.SLICE_INDEX].tolist(),
            "slice_number": (item[BagKeys.SLICE_INDEX] + 1).tolist(),
            "position_mm": [round(position, 3) for position in item[BagKeys.POSITION].tolist()],
            "attention": item[BagKeys.SCORES].tolist(),
            "ratio": np.round(attention_ratio(item[BagKeys.SCORES]), 4).tolist(),
        }
        if BagKeys.INSTANCE_NUMBER in item:
            columns[str(BagKeys.INSTANCE_NUMBER)] = item[BagKeys.INSTANCE_NUMBER].tolist()
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def check_sources(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Raise ``ValueError`` if DICOM is asked for and no item has a DICOM folder, before anything is computed."""
        if self.dicom and items and not any(Path(str(item["image"])).is_dir() for item in items):
            raise ValueError(
                f"`dicom` must be empty for scans that are no DICOM folders, got {list(self.dicom)}; "
                "NIfTI, NRRD and MHA files have no study to write into."
            )

    def status(self, record: Mapping[str, Any]) -> str:
        """Return ``done``, and why a case has no results as DICOM, or an archive does not have them."""
        for key, text in (("missing", "not written as DICOM"), ("not_sent", "not sent")):
            reason = (record.get("dicom") or {}).get(key)
            if reason is not None:
                return f"{BagStatus.DONE}; {text}: {reason}"
        return super().status(record)

    def options(self) -> dict[str, Any]:
        """Return all options that affect the content of the files."""
        return {name: value for name, value in super().options().items() if name != "archive"}

    def is_complete(self, record: Mapping[str, Any]) -> bool:
        """Return whether the results of an earlier run need nothing more: an archive has them, if one is asked for."""
        dicom = record.get("dicom") or {}
        return self.archive is None or "missing" in dicom or dicom.get("sent_to") == self.archive.fingerprint

    def _dicom_files(self, folder: Path, item: Mapping[str, Any]) -> tuple[list[Path], str | None]:
        """Write the results as DICOM, and return their files, or why that is not possible."""
        try:
            return (self._write_dicom(folder, item) if self.dicom else []), None
        except ValueError as error:
            return [], hide_paths(str(error), [item[BagKeys.SOURCE]] if BagKeys.SOURCE in item else [], "the scan")

    def _sent(self, files: Sequence[Path]) -> dict[str, Any]:
        """Send files to the archive, and return what ``prediction.json`` says of it."""
        if self.archive is None:
            return {}
        try:
            if files:
                self.archive.store(files)
        except NotStoredError as error:
            return {"not_sent": str(error)}
        return {"sent_to": self.archive.fingerprint}

    def _write_dicom(self, folder: Path, item: Mapping[str, Any]) -> list[Path]:
        if BagKeys.SOURCE not in item:
            raise ValueError(f"`source` must be an item with the folder of the scan, got {sorted(item)}.")
        source, series, stack = item[BagKeys.SOURCE], item.get(BagKeys.SERIES), item.get(BagKeys.STACK)
        model = (self.model, self.note(item))
        writer = DicomWriter(source, series, *model, stack=stack, class_names=self.class_names or ())
        picture = _pixels(self._figure(item)) if "sc" in self.dicom else None
        return writer.write(folder, item[BagKeys.CASE_ID], self._scan_result(item), self.dicom, picture)

    def _scan_result(self, item: Mapping[str, Any]) -> ScanResult:
        entry, output = item.get(INSTANCE_SET, {}), item["pred"].tolist()
        stated: dict[str, Any] = {"guarantee": str(entry.get("sentence", ""))}
        if self.task not in WITHOUT_CLASSES:
            # without names, one probability is that of the positive class
            names = self.class_names or ([POSITIVE] if len(output) <= 2 else [f"class {c}" for c in range(len(output))])
            stated["probabilities"] = dict(zip(reversed(names), reversed(output), strict=False))
            stated["predicted"] = self.classes(item).get("predicted_class", "")
        if entry.get("indices"):
            chosen = torch.zeros(len(item[BagKeys.SCORES]))
            chosen[entry["indices"]] = 1
            placed: dict[Hashable, Any] = {
                key: value for key, value in item.items() if key != "mask"
            }  # padding is dropped already
            stated["chosen"] = SliceScoresToVolumed(CHOSEN, plane=self.plane)({**placed, CHOSEN: chosen})[CHOSEN]
        return ScanResult(item[BagKeys.SCORE_VOLUME], top_k=len(item[BagKeys.TOP]), **stated)

    def _write_pictures(self, folder: Path, item: Mapping[str, Any]) -> None:
        if not self.pictures:
            return
        case, note = item[BagKeys.CASE_ID], self.note(item)
        scan, display = self._displayed(item)
        if "png" in self.pictures:
            with atomic_path(folder / f"{case}.png") as temporary:
                self._figure(item).savefig(temporary, dpi=DPI)
        if "gif" in self.pictures:
            write_cine(folder / f"{case}.gif", *scan, note=note, display=display)
        named = (("guarantee", _sentence(item.get(INSTANCE_SET, {}))), ("model", note), ("notes", _notes(item)))
        facts = {name: text for name, text in named if text}
        about = {"top_k": len(item[BagKeys.TOP]), "title": self._title(item), "facts": facts, "display": display}
        self._write_pages(folder, case, scan, about)

    def _write_pages(self, folder: Path, case: str, scan: Any, about: Mapping[str, Any]) -> None:
        """Write the pages of a scan; ``about`` are arguments of both."""
        about = {**about, "links": self._links(folder, case)}
        if "html" in self.pictures:
            page = scan_page(*scan, **about)
            with atomic_path(folder / f"{case}.html") as temporary:
                temporary.write_text(page, encoding="utf-8")
        if any(name.startswith("viewer") for name in self.pictures):
            write_scan_viewer(folder, scan, **about, is_full="viewer-full" in self.pictures)

    def _displayed(self, item: Mapping[str, Any]) -> tuple[tuple[Any, Any, Any, Any], SliceDisplay]:
        """Return scores, positions, slices and masks as pictures show them, and how they are displayed."""
        reference = item.get(self.reference_key)
        slices = _middle_channel(item[self.slices_key])
        masks = None if reference is None else _middle_channel(reference) > 0
        slices, display = SliceDisplay.of(item, slices.shape[1:], self.plane).fit_gray(slices)
        return (item[BagKeys.SCORES].numpy(), item[BagKeys.POSITION].numpy(), slices, masks), display

    def _figure(self, item: Mapping[str, Any]) -> Any:
        scan, display = self._displayed(item)
        text = "; ".join(filter(None, [self.note(item), _notes(item)]))
        chosen, label = _marked(item.get(INSTANCE_SET, {}))
        marked = {label: chosen} if label else None
        return plot_slice_scores(*scan, len(item[BagKeys.TOP]), self._title(item), text, display, marked)

    def _title(self, item: Mapping[str, Any]) -> str:
        return f"{item[BagKeys.CASE_ID]}: {self.prediction(item)}"

    def _links(self, folder: Path, case: str) -> dict[str, str]:
        """Return the files beside the page that exist, by what they are."""
        return {text: case + end for text, end in LINKS.items() if (folder / (case + end)).is_file()}


def _pixels(figure: Any) -> NDArray[np.uint8]:
    """Return a figure as pixels (H, W, 3)."""
    figure.set_dpi(DPI)
    canvas = FigureCanvas(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _notes(item: Mapping[str, Any]) -> str:
    return " ".join(input_facts(item).get(BagKeys.NOTES, ()))


def _sentence(entry: Mapping[str, Any]) -> str:
    """Return what a page says of the set of slices."""
    numbers = ", ".join(map(str, entry.get("slice_numbers", ())))
    return str(entry.get("sentence", "")) + (f" Slices: {numbers}." if numbers else "")


def _marked(entry: Mapping[str, Any]) -> tuple[list[int], str]:
    """Return the slices that a picture marks, and their label in its legend."""
    return (entry["indices"], set_label(entry)) if entry.get("indices") else ([], "")


def _middle_channel(images: Tensor) -> NDArray[Any]:
    """Return (N, h, w) of images (N, C, h, w)."""
    return np.asarray(images[:, images.shape[1] // 2])
