"""Writer of scan results as DICOM segmentations and measurement reports."""

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

from monai_mil_ext.utils import RESEARCH_USE, atomic_path, check_positive, optional_dependency

from .dicom_series import find_series
from .score_bands import ScoreBands
from .slice_stack import StackGeometry, series_affine, slice_affines
from .stack_grid import VolumeSlices

__all__ = ["DicomWriter"]

dcmread = optional_dependency("dicom", "pydicom", "dcmread")
generate_uid = optional_dependency("dicom", "pydicom.uid", "generate_uid")

EQUIPMENT = {
    "manufacturer": "monai_mil_ext",
    "manufacturer_model_name": "monai_mil_ext",
    "software_versions": "1",
    "device_serial_number": "0",
}
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
DEFAULT_ALGORITHM = {"name": "monai_mil_ext", "version": "1"}
LONGEST = 64  # characters of a DICOM value of representation LO
SCHEME = "99MONAIMIL"  # private coding scheme, since DICOM has no code for attention scores
UNITS = {"probability": ("1", "no units"), "attention": ("{fraction}", "fraction of the attention of all slices")}
COLORS = ((255, 222, 51), (230, 120, 20), (0, 114, 178))  # of segments, the strongest band first; the last one repeats


class _Algorithm(NamedTuple):
    """Identity of the model that made a result."""

    name: str
    version: str
    note: str

    @classmethod
    def of(cls, model: Mapping[str, Any], note: str) -> _Algorithm:
        name, version = (str(model.get(key) or default)[:LONGEST] for key, default in DEFAULT_ALGORITHM.items())
        return cls(name, version, note)


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
        model: ``name`` and ``version`` of the model.
        note: further text on the model, such as the hash of its weights.
        finding: name of the class whose probability is reported.
        stack: number or name of the stack, if the series has several.

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
        finding: str = "the positive class",
        stack: str | int | None = None,
    ) -> None:
        self.algorithm = _Algorithm.of(model or {}, note)
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

    def write_segmentation(
        self, path: str | os.PathLike[str], volume: MetaTensor, bands: ScoreBands | None = None
    ) -> bool:
        """Write the slices of each band as a segment of a binary DICOM SEG.

        Returns:
            whether a file was written; if no slice is in a band, there is none.

        Raises:
            ValueError: when ``volume`` (1, X, Y, Z) does not have the voxels of the series and one score per slice.
        """
        hd = optional_dependency("dicom", "highdicom")  # takes long to import
        bands = bands or ScoreBands()
        scores = self._scores(volume)
        band = bands(scores)
        numbers = [int(number) for number in np.unique(band[band > 0])]
        if not numbers:
            return False
        shape = (self.headers[0].Rows, self.headers[0].Columns)
        segments = [np.broadcast_to((band == number)[:, None, None], (len(band), *shape)) for number in numbers]
        with _highdicom_errors():
            segmentation = hd.seg.Segmentation(
                source_images=self.headers,
                pixel_array=np.stack(segments, axis=-1).astype(np.uint8),
                segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[
                    _segment(hd, i, bands.names[number - 1], COLORS[min(number, len(COLORS)) - 1], self.algorithm)
                    for i, number in enumerate(numbers, 1)
                ],
                **self._identity("seg", scores, bands.names),
                **EQUIPMENT,
            )
        _save(path, segmentation)
        return True

    def write_report(
        self, path: str | os.PathLike[str], volume: MetaTensor, probability: float, top_k: int = 4
    ) -> None:
        """Write the probability of the scan and the scores of its top slices as a DICOM SR (TID 1500).

        Raises:
            ValueError: when ``volume`` is invalid as in ``write_segmentation``, ``probability`` is not in [0, 1] or
                ``top_k`` is not positive.
        """
        hd = optional_dependency("dicom", "highdicom")
        check_positive(top_k=top_k)
        if not 0 <= probability <= 1:
            raise ValueError(f"`probability` must be in [0, 1], got {probability}.")
        scores = self._scores(volume)
        top = [int(k) for k in np.argsort(-scores, kind="stable")[:top_k] if scores[k] > 0]
        identity = self._identity("sr", scores, [str(probability), str(top_k)])
        meaning = f"Probability of {self.finding}"[:LONGEST]
        with _highdicom_errors():
            of_scan = {"algorithm_id": _sr_algorithm(hd, self.algorithm), "finding_type": _finding(hd, self.finding)}
            groups = [_measurement_group(hd, identity, "scan", meaning, probability, **of_scan)]
            groups += [
                _measurement_group(
                    hd, identity, f"slice of rank {rank}", "Attention of a slice", float(scores[k]), self.headers[k]
                )
                for rank, k in enumerate(top, 1)
            ]
            report = hd.sr.ComprehensiveSR(
                evidence=self.headers,
                content=_content(hd, identity, groups)[0],
                is_complete=False,
                is_verified=False,
                **identity,
                **{key: value for key, value in EQUIPMENT.items() if key != "device_serial_number"},
            )
        _save(path, report)

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

    def _identity(self, kind: str, scores: NDArray[np.float64], settings: Sequence[str]) -> dict[str, Any]:
        uids = [str(header.SOPInstanceUID) for header in self.headers]
        made_by = [*self.algorithm, self.finding]
        content = [kind, *uids, *(format(score, ".9g") for score in scores), *settings, *made_by]
        return {
            "series_instance_uid": generate_uid(entropy_srcs=["series", *content]),
            "sop_instance_uid": generate_uid(entropy_srcs=["instance", *content]),
            "series_number": {"seg": 9001, "sr": 9002}[kind],
            "instance_number": 1,
            "series_description": f"Slice attention {kind.upper()}, {RESEARCH_USE}",
        }


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


def _segment(hd: Any, number: int, name: str, color: tuple[int, int, int], algorithm: _Algorithm) -> Any:
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=hd.sr.CodedConcept("309825002", "SCT", "Spatial and Relational Concept"),
        segmented_property_type=hd.sr.CodedConcept("111099", "DCM", "Selected region"),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=algorithm.name,
            family=hd.sr.CodedConcept("123110", "DCM", "Artificial Intelligence"),
            version=algorithm.version,
            parameters={"model": algorithm.note} if algorithm.note else None,
        ),
        display_color=hd.color.CIELabColor.from_rgb(*color),
    )


def _measurement_group(
    hd: Any,
    identity: Mapping[str, Any],
    name: str,
    meaning: str,
    value: float,
    image: Any = None,
    **about: Any,
) -> Any:
    """Return a measurement group (TID 1501) with one number, of the scan or of one of its slices."""
    quantity = meaning.split(maxsplit=1)[0].lower()
    code = hd.sr.CodedConcept(quantity, SCHEME, meaning)
    unit = hd.sr.CodedConcept(UNITS[quantity][0], "UCUM", UNITS[quantity][1])
    sources = [] if image is None else [hd.sr.SourceImageForMeasurementGroup.from_source_image(image)]
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=generate_uid(entropy_srcs=[identity["sop_instance_uid"], name]), identifier=name
        ),
        measurements=[hd.sr.Measurement(name=code, value=value, unit=unit)],
        source_images=sources or None,
        **about,
    )


def _finding(hd: Any, name: str) -> Any:
    """Return the code of a class: a hash, since the value of a code has 16 characters and no meaning of its own."""
    return hd.sr.CodedConcept(sha256(name.encode()).hexdigest()[:16], SCHEME, name[:LONGEST])


def _sr_algorithm(hd: Any, algorithm: _Algorithm) -> Any:
    parameters = [algorithm.note] if algorithm.note else None
    return hd.sr.AlgorithmIdentification(algorithm.name, algorithm.version, parameters)


def _content(hd: Any, identity: Mapping[str, Any], groups: Sequence[Any]) -> Any:
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=generate_uid(entropy_srcs=["monai_mil_ext"]), manufacturer_name="monai_mil_ext", name=RESEARCH_USE
    )
    observer = hd.sr.ObserverContext(
        observer_type=hd.sr.CodedConcept("121007", "DCM", "Device"), observer_identifying_attributes=device
    )
    return hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=hd.sr.CodedConcept("363679005", "SCT", "Imaging procedure"),
        imaging_measurements=groups,
        title=hd.sr.CodedConcept("126000", "DCM", "Imaging Measurement Report"),
    )


def _save(path: str | os.PathLike[str], dataset: Any) -> None:
    with atomic_path(path) as temporary:
        dataset.save_as(temporary)
