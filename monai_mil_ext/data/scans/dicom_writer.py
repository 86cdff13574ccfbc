"""Writer of scan results as DICOM objects of the study."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray

from monai_mil_ext.utils import RESEARCH_USE, atomic_path, check_choice, optional_dependency

from .dicom_series import find_series
from .results.key_objects import key_object_selection, secondary_capture
from .results.model_identity import MANUFACTURER, ModelIdentity
from .results.report_content import ListedSlice, report_content
from .results.scan_result import POSITIVE, ScanResult
from .score_bands import ScoreBands
from .slice_stack import StackGeometry, series_affine, slice_affines
from .stack_grid import VolumeSlices

__all__ = ["DicomWriter"]

dcmread = optional_dependency("dicom", "pydicom", "dcmread")
generate_uid = optional_dependency("dicom", "pydicom.uid", "generate_uid")

EQUIPMENT = dict(zip(("manufacturer", "manufacturer_model_name", "software_versions"), [MANUFACTURER] * 3, strict=True))
PATIENT_GROUPS = (0x0010, 0x0012)  # of tags: patient, clinical trial and whether the series is anonymized
# type 2 attributes, required but possibly empty; anonymized series often lack some
TYPE_2 = (
    "AccessionNumber",
    "PatientBirthDate",
    "PatientID",
    "PatientName",
    "PatientSex",
    "ReferringPhysicianName",
    "StudyDate",
    "StudyID",
    "StudyTime",
)
# of segments, the strongest band first; the last one repeats. They get darker, and none is green, which reads as "fine"
COLORS = ((255, 222, 51), (230, 120, 20), (0, 114, 178))
TITLES = {"seg": "attention SEG", "sr": "attention SR", "ko": "key slices", "sc": "picture"}
NUMBERS = {"seg": 9001, "sr": 9002, "ko": 9003, "sc": 9004}  # of the series, by kind
REPORT_CLASS = "1.2.840.10008.5.1.4.1.1.88.33"  # Comprehensive SR Storage


class DicomWriter:
    """Writer of the results of one scan as DICOM objects of its study, based on ``highdicom``.

    **The objects identify the patient**: name, ID, birth date, sex, accession number and dates of the study are copied
    from the series, as DICOM requires, and so are StudyInstanceUID and FrameOfReferenceUID. Each object is a separate
    series whose description contains "research use only". UIDs are derived from the series and the content, so that the
    same result written twice is one object in an archive.

    Scores are a volume in the voxels of the scan, as returned by
    :py:class:`monai_mil_ext.transforms.SliceScoresToVolume`: one score for each slice of the series, so the plane of
    the bag must be that of the series. The slices of an irregular series may be read as they are, but not resampled.

    Args:
        source: folder of the series.
        series: UID, description or number of the series, if the folder has several.
        model: ``name``, ``version`` and ``sha256`` of the model.
        note: further text on the model, such as whether the scan is as those of its training.
        finding: name of the class whose probability ``write_report`` states.
        stack: number or name of the stack, if the series has several.
        class_names: names of the classes of the model.

    Raises:
        ValueError: when ``source`` is not a folder with one series, lacks a frame of reference, or, when written, any
            other header that highdicom needs. A missing slice thickness is replaced by the distance of slices.
        OptionalImportError: when ``highdicom`` is not installed (extra ``dicom``).
    """

    @staticmethod
    def check_installed() -> None:
        """Raise ``OptionalImportError`` unless ``highdicom`` is installed (extra ``dicom``)."""
        _ = optional_dependency("dicom", "highdicom").__version__

    def __init__(
        self,
        source: str | os.PathLike[str],
        series: str | None = None,
        model: Mapping[str, Any] | None = None,
        note: str = "",
        finding: str = POSITIVE,
        stack: str | int | None = None,
        class_names: Sequence[str] = (),
    ) -> None:
        self.model = ModelIdentity.of(model or {}, note, class_names)
        self.finding = finding
        folder = Path(source)
        if not folder.is_dir():
            raise ValueError(
                "`source` must be the DICOM folder of the scan for results as DICOM, got a single file; "
                "NIfTI, NRRD and MHA files have no study to write into."
            )
        slices = find_series(folder, series, stack, "allow")  # the results refer to slices, which need no grid
        if any(item.frame is not None for item in slices):
            raise ValueError("`source` must be a series of single slices for results as DICOM, got an enhanced object.")
        self.affine = series_affine(slices)
        self.position = np.stack([affine[:3, 3] for affine in slice_affines(slices)])
        self.is_irregular = bool(StackGeometry.of(slices).fault())
        step = float(np.linalg.norm(slice_affines(slices)[0][:3, 2]))
        self.headers = [_header(item.path, step) for item in slices]
        required = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
        missing = [tag for tag in required if not self.headers[0].get(tag)]
        each = ("Modality", "SOPClassUID", "SOPInstanceUID")
        missing += [tag for tag in each if not all(header.get(tag) for header in self.headers)]
        if missing:
            raise ValueError(
                f"`source` must have {', '.join((*required, *each))} for results as DICOM, got none of {missing}."
            )

    def write(
        self,
        folder: str | os.PathLike[str],
        name: str,
        result: ScanResult,
        kinds: Sequence[str],
        picture: NDArray[np.uint8] | None = None,
    ) -> list[Path]:
        """Write the result of a scan as objects of its study; segmentation and report refer to one another.

        ============ ======================= ==========================================================
        kind         file                    object
        ============ ======================= ==========================================================
        ``"seg"``    ``<name>_seg.dcm``      segmentation: each band of slices is a segment
        ``"sr"``     ``<name>_sr.dcm``       measurement report (TID 1500): classes and listed slices
        ``"ko"``     ``<name>_ko.dcm``       key object selection of the listed slices
        ``"sc"``     ``<name>_sc.dcm``       ``picture`` as secondary capture
        ============ ======================= ==========================================================

        Args:
            folder: folder of the files.
            name: beginning of the names of the files.
            result: result to write.
            kinds: objects to write.
            picture: picture (H, W, 3) of the scan.

        Returns:
            the files; there is no segmentation if no slice is in a band.

        Raises:
            ValueError: when a volume of ``result`` does not have the voxels of the series and one score per slice, or
                the picture of ``"sc"`` is missing.
        """
        for kind in kinds:
            check_choice("kinds", kind, tuple(NUMBERS))
        if "sc" in kinds and picture is None:
            raise ValueError("`picture` must be given for 'sc', got None.")
        answer, files = self._answer(result), []
        objects: dict[str, Any] = {}
        for kind in (kind for kind in NUMBERS if kind in kinds):
            objects[kind] = self._object(kind, answer, "sr" in kinds, objects.get("seg"), picture)
            if objects[kind] is not None:
                files.append(Path(folder) / f"{name}_{kind}.dcm")
                _save(files[-1], objects[kind])
        return files

    def write_segmentation(
        self, path: str | os.PathLike[str], volume: MetaTensor, bands: ScoreBands | None = None
    ) -> bool:
        """Write the slices of each band as a segment of a binary DICOM SEG.

        Returns:
            whether a file was written; if no slice is in a band, there is none.

        Raises:
            ValueError: when ``volume`` (1, X, Y, Z) does not have the voxels of the series and one score per slice.
        """
        dataset = self._object("seg", self._answer(ScanResult(volume, bands=bands or ScoreBands())))
        if dataset is not None:
            _save(path, dataset)
        return dataset is not None

    def write_report(
        self, path: str | os.PathLike[str], volume: MetaTensor, probability: float, top_k: int = 4
    ) -> None:
        """Write the probability of the scan and the scores of its top slices as a DICOM SR (TID 1500).

        Raises:
            ValueError: when ``volume`` is invalid as in ``write_segmentation``, ``probability`` is not in [0, 1] or
                ``top_k`` is not positive.
        """
        result = ScanResult(volume, {self.finding: probability}, top_k=top_k)
        _save(path, self._object("sr", self._answer(result)))

    def _answer(self, result: ScanResult) -> _Answer:
        scores = self._scores(result.volume)
        chosen = np.zeros(len(scores), bool) if result.chosen is None else self._scores(result.chosen) > 0
        ranks = 1 + np.argsort(np.argsort(-scores, kind="stable"))
        slices = [
            ListedSlice(self.headers[k], int(ranks[k]), float(scores[k]), bool(chosen[k]))
            for k in result.rank(scores, chosen)
        ]
        return _Answer(result, scores, slices)

    def _object(
        self,
        kind: str,
        answer: _Answer,
        with_report: bool = False,
        segmentation: Any = None,
        picture: Any = None,
    ) -> Any:
        """Return an object of one kind, or None for a segmentation without segments."""
        with _highdicom_errors():
            if kind == "seg":
                dataset = self._segmentation(answer, with_report)
            elif kind == "sr":
                dataset = self._report(answer, segmentation)
            elif kind == "ko":
                slices = [entry.header for entry in answer.slices]
                dataset = key_object_selection(slices, answer.describe(), self._identity(kind, answer))
            else:
                identity = self._identity(kind, answer, [sha256(picture.tobytes()).hexdigest()])
                dataset = secondary_capture(self.headers[0], picture, identity)
            return None if dataset is None else self._complete(dataset)

    def _complete(self, dataset: Any) -> Any:
        """Add the versions, and all of the patient and of clinical trials that the source has."""
        dataset.ManufacturerModelName = MANUFACTURER
        dataset.SoftwareVersions = self.model.software()
        for element in self.headers[0]:
            if element.tag.group in PATIENT_GROUPS:
                dataset.add(element)
        return dataset

    def _segmentation(self, answer: _Answer, with_report: bool) -> Any:
        hd = optional_dependency("dicom", "highdicom")  # takes long to import
        bands = answer.result.marked
        band = bands(answer.scores)
        numbers = [int(number) for number in np.unique(band[band > 0])]
        if not numbers:
            return None
        shape = (self.headers[0].Rows, self.headers[0].Columns)
        segments = [np.broadcast_to((band == number)[:, None, None], (len(band), *shape)) for number in numbers]
        segmentation = hd.seg.Segmentation(
            source_images=self.headers,
            pixel_array=np.stack(segments, axis=-1).astype(np.uint8),
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[
                _segment(hd, i, bands.names[number - 1], COLORS[min(number, len(COLORS)) - 1], self.model)
                for i, number in enumerate(numbers, 1)
            ],
            content_description=answer.result.summary() or None,
            device_serial_number=self.model.weights or "unknown",
            **self._identity("seg", answer),
            **EQUIPMENT,
        )
        for segment in segmentation.SegmentSequence:
            segment.SegmentDescription = answer.describe()
        if with_report:
            segmentation.ReferencedInstanceSequence = [self._report_reference(hd, answer)]
        return segmentation

    def _report_reference(self, hd: Any, answer: _Answer) -> Any:
        reference = hd.sr.CodedConcept("126000", "DCM", "Imaging Measurement Report")
        item = optional_dependency("dicom", "pydicom").Dataset()
        item.ReferencedSOPClassUID = REPORT_CLASS
        item.ReferencedSOPInstanceUID = self._identity("sr", answer)["sop_instance_uid"]
        item.PurposeOfReferenceCodeSequence = [reference]
        return item

    def _report(self, answer: _Answer, segmentation: Any) -> Any:
        hd = optional_dependency("dicom", "highdicom")
        identity, result = self._identity("sr", answer), answer.result
        stated = (result.probabilities, result.predicted, result.guarantee)
        content = report_content(identity["sop_instance_uid"], answer.slices, *stated, self.model, segmentation)
        return hd.sr.ComprehensiveSR(
            evidence=self.headers if segmentation is None else [*self.headers, segmentation],
            content=content[0],
            is_complete=False,
            is_verified=False,
            **identity,
            **EQUIPMENT,
        )

    def _scores(self, volume: MetaTensor) -> NDArray[np.float64]:
        """Return the score (N,) of every slice of the series from a volume."""
        first = self.headers[0]
        shape = (1, first.Columns, first.Rows, len(self.headers))
        same_grid = tuple(volume.shape) == shape and np.allclose(volume.affine.cpu(), self.affine, atol=0.01)
        if not same_grid or (self.is_irregular and not self._has_slices(volume)):
            raise ValueError(
                f"`volume` must have the voxels of the series, {shape} with affine {self.affine.tolist()}, "
                f"got {tuple(volume.shape)} with affine {volume.affine.tolist()}."
            )
        slices = volume.as_tensor()[0].flatten(0, 1).double().cpu().numpy()
        if (slices.min(axis=0) != slices.max(axis=0)).any():
            raise ValueError(
                "`volume` must have one score for each slice of the series, got slices with several scores "
                "(was the bag sliced in another plane than the series?)."
            )
        return slices[0]

    def _has_slices(self, volume: MetaTensor) -> bool:
        """Return whether the slices of a volume are those of the irregular series."""
        slices = VolumeSlices.of(volume.meta, volume.affine.cpu().numpy(), volume.shape[1:])
        return slices is not None and slices.axis == 2 and np.allclose(slices.position, self.position, atol=0.01)

    def _identity(self, kind: str, answer: _Answer, settings: Sequence[str] = ()) -> dict[str, Any]:
        uids = [str(header.SOPInstanceUID) for header in self.headers]
        ranks = [f"{entry.rank}{entry.is_chosen}" for entry in answer.slices]
        scores = [format(score, ".9g") for score in answer.scores]
        content = [kind, *uids, *scores, *ranks, *answer.result.content(), *settings, *self.model]
        summary = answer.result.summary()
        return {
            "series_instance_uid": generate_uid(entropy_srcs=["series", *content]),
            "sop_instance_uid": generate_uid(entropy_srcs=["instance", *content]),
            "series_number": NUMBERS[kind],
            "instance_number": 1,
            "series_description": f"{summary}{'; ' if summary else ''}{TITLES[kind]}, {RESEARCH_USE}",
        }


class _Answer(NamedTuple):
    """Result in the slices of the series: scores (N,), and the slices to list by rank."""

    result: ScanResult
    scores: NDArray[np.float64]
    slices: list[ListedSlice]

    def describe(self) -> str:
        """Describe the result for readers of an object that has no other place for it."""
        numbers = ", ".join(f"{name} {value:.2f}" for name, value in self.result.probabilities.items())
        known = [f"Probability: {numbers}."] if numbers else []
        known += [self.result.guarantee] if self.result.guarantee else []
        return " ".join([*known, f"Slices by attention, rank 1 first; {RESEARCH_USE}."])


def _header(path: Path, step: float) -> Any:
    """Read a header, and add what objects derived from it need: empty attributes, and the thickness of a slice."""
    header = dcmread(path, stop_before_pixels=True)
    if not header.get("SliceThickness"):
        header.SliceThickness = format(step, ".9g")
    for tag in TYPE_2:
        if tag not in header:
            setattr(header, tag, "")
    return header


@contextmanager
def _highdicom_errors() -> Iterator[None]:
    """Turn errors of highdicom on the headers of a series into ``ValueError``, without their values.

    Warnings are suppressed, since that on an unusual patient name prints the name.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except Exception as error:  # AttributeError, KeyError, TypeError, ... for whatever a header lacks
            attribute = re.search(r"attribute '(\w+)'", str(error))
            got = f"none of {attribute[1]}" if attribute else f"{type(error).__name__} in highdicom"
            raise ValueError(f"`source` must have all headers that results as DICOM need, got {got}.") from None


def _segment(hd: Any, number: int, name: str, color: tuple[int, int, int], model: ModelIdentity) -> Any:
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=hd.sr.CodedConcept("309825002", "SCT", "Spatial and Relational Concept"),
        segmented_property_type=hd.sr.CodedConcept("111099", "DCM", "Selected region"),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=model.for_segment(),
        display_color=hd.color.CIELabColor.from_rgb(*color),
    )


def _save(path: str | os.PathLike[str], dataset: Any) -> None:
    with atomic_path(path) as temporary:
        dataset.save_as(temporary)
