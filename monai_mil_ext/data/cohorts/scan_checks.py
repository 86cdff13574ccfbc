"""Checks of the scans of a cohort before they are encoded."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_mil_ext.data.features.bad_cases import reason_of
from monai_mil_ext.data.scans.dicom_files import GROUPS, NO_IMAGE, has_preamble, is_enhanced
from monai_mil_ext.data.scans.dicom_folder import scan_files
from monai_mil_ext.data.scans.dicom_series import find_series
from monai_mil_ext.utils import BagKeys, optional_dependency
from monai_mil_ext.utils.remote import local_copy

from .check_report import CohortReport, Issue
from .class_labels import class_index, describe_words
from .mixtures import class_labels, mixture_issues

__all__ = ["ScanChecks"]

pydicom = optional_dependency("dicom", "pydicom")
nib = optional_dependency("", "nibabel")

CASE, LABEL = str(BagKeys.CASE_ID), "label"
NIFTI = (".nii", ".nii.gz")
SLICE_TAGS = ("PixelSpacing", "ImagePositionPatient")  # of image slices, which secondary captures lack


@dataclass(frozen=True)
class ScanChecks:
    """Settings of the checks of scans.

    The headers of DICOM series and NIfTI files are read, but no voxels; of other files only the size is checked. Scans
    of several modalities, such as CT and MR, are an error, and so is a modality that depends on the label.

    Args:
        required: keys that every scan must have, such as ``reference``, each with an advice for cohorts without it.
        num_classes: number of classes, if the ``label`` of a scan must be one of 0, 1, ..., or a name of ``classes``.
        classes: names of the classes in the order of their indices.
        headers: whether to read all headers; otherwise only one of each scan is read, for its modality.
        allow_mismatch: whether several modalities are a note and no error.
        irregular: see :py:class:`monai_mil_ext.data.ScanReader`.

    Example:
        >>> scans = [{"case_id": "a", "image": "a.mha"}, {"case_id": "b", "image": "b.mha"}]
        >>> _ = Path("a.mha").write_text("header"), Path("b.mha").write_text("header")
        >>> report = CohortReport("cohort.json", 2, scans)
        >>> ScanChecks({"reference": "use labels of whole scans"}).check(report)
        >>> print(report.errors[0])
        `reference` must be given for scans, got none in all 2: use labels of whole scans
    """

    required: Mapping[str, str] = field(default_factory=dict)
    num_classes: int | None = None
    classes: Sequence[str] | None = None
    headers: bool = True
    allow_mismatch: bool = False
    irregular: str = "refuse"

    def check(self, report: CohortReport, encoded: Collection[str] = ()) -> None:
        """Check the items of a report: add errors and notes, and remove invalid items.

        Args:
            report: the report.
            encoded: IDs of cases that have features, so that of their headers only the modality is read.
        """
        lacking, words = self._lacking(report), self._words(report)
        report.errors += [Issue("", words)] if words else []
        modalities: list[str | None] = []
        valid = []
        for item in report.items:
            texts = [*lacking.get(str(item[CASE]), []), *([] if words else self._read_label(item))]
            modality, error = _inspect(item, self.headers and item[CASE] not in encoded, self.irregular)
            texts += [error] if error else []
            report.errors += [Issue(f"case {item[CASE]!r}", text, str(item[CASE])) for text in texts]
            if not texts:
                valid.append(item)
                modalities.append(modality)
        report.items = valid
        errors, notes = mixture_issues("modality", modalities, class_labels(valid), not self.allow_mismatch)
        report.errors += errors
        report.notes += notes

    def _lacking(self, report: CohortReport) -> dict[str, list[str]]:
        """Return the errors of scans that lack a required key; what all lack is one error of the cohort."""
        texts: dict[str, list[str]] = {}
        for key, advice in self.required.items():
            cases = [str(item[CASE]) for item in report.items if item.get(key) is None]
            if cases and len(cases) == len(report.items):
                rule = f"`{key}` must be given for scans, got none in all {len(cases)}"
                report.errors.append(Issue("", f"{rule}: {advice}"))
                continue
            for case in cases:
                texts.setdefault(case, []).append(f"`{key}` must be given, got none: {advice}")
        return texts

    def _words(self, report: CohortReport) -> str:
        if self.num_classes is None:
            return ""
        return describe_words((item[LABEL] for item in report.items if LABEL in item), self.classes)

    def _read_label(self, item: dict[str, Any]) -> list[str]:
        """Replace the label of an item by its class number, and return the error if it is none."""
        label = item.get(LABEL)
        if self.num_classes is None or (label is None and LABEL in self.required):
            return []
        try:
            item[LABEL] = class_index(label, self.classes, self.num_classes)
        except ValueError as error:
            rule = f"a class from 0 to {self.num_classes - 1}, got {label!r}" if self.classes is None else str(error)
            return [f"`label` must be {rule}"]
        return []


def _inspect(item: Mapping[str, Any], headers: bool, irregular: str) -> tuple[str | None, str]:
    """Return the modality of a scan, if it states one, and an error message or an empty string."""
    try:
        with local_copy(item["image"]) as path:
            return _inspect_file(path, item, headers, irregular)
    except ImportError:
        raise
    except Exception as error:  # a damaged header can raise almost any error in the libraries that read it
        return None, reason_of(error, item)


def _inspect_file(path: Path, item: Mapping[str, Any], headers: bool, irregular: str) -> tuple[str | None, str]:
    if not (path.is_file() or path.is_dir()):
        raise ValueError("`image` must exist, got a path without a file.")
    if headers:
        _check_header(path, item.get("series"), item.get("stack"), irregular)
    return _modality(path, item.get("series"), item.get("stack")), ""


def _check_header(path: Path, series: str | None, stack: str | None, irregular: str) -> None:
    """Raise unless the header of a scan is that of a 3D volume."""
    if path.is_dir() or has_preamble(path):
        find_series(path, series, stack, irregular)
    elif not path.stat().st_size:
        raise ValueError("`image` must be a readable, undamaged scan, got an empty file.")
    elif path.name.lower().endswith(NIFTI):
        image = nib.squeeze_image(nib.load(path))
        if len(image.shape) != 3 or image.get_data_dtype().kind not in "biuf":
            voxels = " x ".join(map(str, image.shape))
            raise ValueError(f"`image` must be one 3D scalar volume, got {voxels} voxels of {image.get_data_dtype()}.")


def _modality(path: Path, series: str | None, stack: str | None) -> str | None:
    """Return the modality from the header of the first image slice, or of the chosen series."""
    if series is not None and path.is_dir():
        return find_series(path, series, stack, "allow")[0].series[1] or None
    return next((modality for modality in map(_modality_of_slice, scan_files(path)) if modality), None)


def _modality_of_slice(path: Path) -> str | None:
    if not has_preamble(path):
        return None
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Modality", *SLICE_TAGS, *GROUPS])
    except EOFError:
        return None
    modality = str(header.get("Modality", None) or "")
    has_geometry = is_enhanced(header) or all(header.get(tag, None) is not None for tag in SLICE_TAGS)
    return modality if has_geometry and modality not in NO_IMAGE else None
