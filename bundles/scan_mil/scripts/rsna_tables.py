"""Scans and slice labels of three RSNA competitions, read from the files in their published layout."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from monai_mil_ext.data import CohortReport
from monai_mil_ext.data.cohorts.check_report import Issue
from monai_mil_ext.utils import check_name
from pydicom import dcmread
from pydicom.config import disable_value_validation
from pydicom.errors import InvalidDicomError
from tqdm import tqdm

__all__ = ["READERS", "read_abdomen", "read_chest", "read_head"]

TAGS = ["SeriesInstanceUID", "PatientID", "ImagePositionPatient"]


class _Slice(NamedTuple):
    file: str  # path relative to the folder of the competition
    place: float  # position in ascending order
    label: int


def read_head(source: Path) -> CohortReport:
    """Read RSNA 2019 intracranial hemorrhage: ``stage_2_train.csv`` and the flat folder ``stage_2_train``.

    A slice is positive if its row ``ID_<slice>_any`` is 1. Scans are identified by SeriesInstanceUID, patients by
    PatientID, and slices are sorted by z of ImagePositionPatient; these are only in the DICOM headers, which are all
    read. Slices with a missing or unreadable file can't be assigned to a scan, so each is reported.
    """
    report = CohortReport("stage_2_train.csv")
    labels = _head_labels(source / report.name, report)
    files = {path.stem: path for path in sorted((source / "stage_2_train").glob("*.dcm"))}
    report.skipped += [Issue(name, "slice without a DICOM file") for name in sorted(labels.keys() - files.keys())]
    scans: dict[str, list[_Slice]] = defaultdict(list)
    patients: dict[str, set[str]] = defaultdict(set)
    unlabeled: dict[str, int] = defaultdict(int)
    for name, path in tqdm(files.items(), desc="headers", disable=None):
        try:
            with disable_value_validation():  # UIDs of the competition, ID_..., are not valid in DICOM
                header = dcmread(path, stop_before_pixels=True, specific_tags=TAGS)
                series, patient = str(header.SeriesInstanceUID), str(header.PatientID)
                height = float(header.ImagePositionPatient[2])
        except (InvalidDicomError, EOFError, AttributeError, TypeError, ValueError):
            report.skipped.append(Issue(name, "slice whose DICOM file has no readable series, patient and position"))
            continue
        patients[series].add(patient)
        unlabeled[series] += name not in labels
        scans[series].append(_Slice(str(path.relative_to(source)), height, labels.get(name, 0)))
    for series, slices in scans.items():
        reason = f"{unlabeled[series]} of its slices are not in the table" if unlabeled[series] else ""
        if len(patients[series]) > 1:
            reason = f"it is of {len(patients[series])} patients"
        _add(report, series, min(patients[series]), slices, reason)
    return report


def _head_labels(path: Path, report: CohortReport) -> dict[str, int]:
    labels: dict[str, int] = {}
    for number, row in _rows(path, ["ID", "Label"]):
        report.num_rows += 1
        name, _, kind = row["ID"].rpartition("_")
        if kind == "any":
            _add_label(report, labels, number, name, row["Label"])
    return labels


def read_chest(source: Path) -> CohortReport:
    """Read RSNA 2020 pulmonary embolism: ``train.csv`` and ``train/<study>/<series>/<slice>.dcm``.

    A slice is positive if ``pe_present_on_image`` is 1. Slices are sorted by InstanceNumber of the headers. Every study
    counts as a patient, since the patient is not stated. A scan is skipped if the files in its folder differ from those
    in the table.
    """
    report = CohortReport("train.csv")
    uids = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]
    labels: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for number, row in _rows(source / report.name, [*uids, "pe_present_on_image"]):
        report.num_rows += 1
        study, series, name = (row[uid] for uid in uids)
        _add_label(report, labels[study, series], number, name, row["pe_present_on_image"])
    for (study, series), slice_labels in tqdm(labels.items(), desc="series", disable=None):
        folder = source / "train" / study / series
        slices, reason = _read_folder(source, folder, slice_labels, _instance_number)
        _add(report, series, study, slices, reason)
    _report_unlisted(report, (source / "train").glob("*/*"), {(study, series) for study, series in labels})
    return report


def read_abdomen(source: Path) -> CohortReport:
    """Read RSNA 2023 abdominal trauma: three tables and ``train_images/<patient>/<series>/<number>.dcm``.

    Scans are the series of ``train_series_meta.csv``, patients those of ``train.csv``. A slice is positive if
    ``image_level_labels.csv`` has a row for it, for any injury. A scan is positive if any of its slices is, since
    labels in ``train.csv`` are per patient. Slices are sorted by the number in the file name. A scan is skipped if its
    patient is not in the table, or a row names a slice without a file.
    """
    report = CohortReport("train_series_meta.csv")
    patients = {row["patient_id"] for _, row in _rows(source / "train.csv", ["patient_id"])}
    positive: dict[tuple[str, str], set[str]] = defaultdict(set)
    for _, row in _rows(source / "image_level_labels.csv", ["patient_id", "series_id", "instance_number"]):
        positive[row["patient_id"], row["series_id"]].add(row["instance_number"])
    listed: set[tuple[str, str]] = set()
    for number, row in _rows(source / report.name, ["patient_id", "series_id"]):
        report.num_rows += 1
        patient, series = row["patient_id"], row["series_id"]
        if (patient, series) in listed:
            report.skipped.append(Issue(f"row {number}", f"series {series} of patient {patient} once more"))
            continue
        listed.add((patient, series))
        folder = source / "train_images" / _checked_name(patient) / _checked_name(series)
        names = {path.stem for path in folder.glob("*.dcm")}
        absent = positive[patient, series] - names
        labels = {name: int(name in positive[patient, series]) for name in names}
        slices, reason = _read_folder(source, folder, labels, lambda path: float(path.stem))
        reason = f"{len(absent)} labeled slices have no file" if absent and names else reason
        reason = reason if patient in patients else "its patient is not in train.csv"
        _add(report, f"{patient}_{series}", patient, slices, reason)
    lost = sorted(key for key, numbers in positive.items() if numbers and key not in listed)
    report.skipped += [Issue("_".join(key), "labels of slices of a series that is not in the table") for key in lost]
    _report_unlisted(report, (source / "train_images").glob("*/*"), listed)
    return report


READERS: dict[str, Callable[[Path], CohortReport]] = {
    "head": read_head,
    "chest": read_chest,
    "abdomen": read_abdomen,
}


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Iterate over the rows and their numbers in the file, one at a time, since a table may have millions."""
    if not path.is_file():
        raise FileNotFoundError(f"`source` must be a folder with {path.name!r}, got none there.")
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        missing = [column for column in columns if column not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{path.name} must have the columns {missing}, got {list(reader.fieldnames or ())}.")
        yield from enumerate(reader, 2)


def _add_label(report: CohortReport, labels: dict[str, int], number: int, name: str, cell: str) -> None:
    """Add the label of a slice; an invalid label, or one that contradicts an earlier row, is an error."""
    if cell not in ("0", "1"):
        report.errors.append(Issue(f"row {number}", f"the label of {name!r} must be 0 or 1, got {cell!r}"))
    elif name not in labels:
        labels[name] = int(cell)
    elif labels[name] == int(cell):
        report.notes.append(Issue(f"row {number}", f"{name} once more, with the same label"))
    else:
        report.errors.append(Issue(f"row {number}", f"{name!r} must have one label, got both 0 and 1"))


def _read_folder(
    source: Path, folder: Path, labels: Mapping[str, int], position: Callable[[Path], float]
) -> tuple[list[_Slice], str]:
    """Return the slices of a folder, and the reason if it can't be used."""
    files = sorted(folder.glob("*.dcm"))
    names = {path.stem for path in files}
    if not files:
        return [], "no DICOM file in its folder"
    absent, unknown = len(labels.keys() - names), len(names - labels.keys())
    if absent or unknown:
        return [], f"{absent} of its slices have no file, {unknown} of its files are not in the table"
    try:
        slices = [_Slice(str(path.relative_to(source)), position(path), labels[path.stem]) for path in files]
    except (InvalidDicomError, EOFError, AttributeError, TypeError, ValueError):
        return [], "a DICOM file without a readable number"
    return slices, ""


def _instance_number(path: Path) -> float:
    return float(dcmread(path, stop_before_pixels=True, specific_tags=["InstanceNumber"]).InstanceNumber)


def _add(report: CohortReport, case: str, patient: str, slices: list[_Slice], reason: str) -> None:
    """Add a scan with its sorted slices to the items, or report the reason for skipping it."""
    for name in (case, patient):
        _checked_name(name)
    if reason:
        report.skipped.append(Issue(case, reason))
        return
    ordered = sorted(slices, key=lambda row: (row.place, row.file))
    repeated = len(ordered) - len({row.place for row in ordered})
    if repeated:
        report.notes.append(Issue(case, f"{repeated} slices share their position with another: sorted by file name"))
    label = max(row.label for row in ordered)
    report.items.append({"case_id": case, "patient": patient, "label": label, "slices": ordered})


def _checked_name(name: str) -> str:
    """Return a name from a table or a header; refuse one that could lead out of its folder."""
    check_name(name=name)
    return name


def _report_unlisted(report: CohortReport, folders: Iterator[Path], listed: set[tuple[Any, ...]]) -> None:
    unlisted = sorted(path.name for path in folders if path.is_dir() and (path.parent.name, path.name) not in listed)
    report.skipped += [Issue(name, "a folder that is not in the table") for name in unlisted]
