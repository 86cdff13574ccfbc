"""Scans and labels of slices from the files of three RSNA competitions, in the layout in which they are handed out."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydicom import dcmread
from pydicom.config import disable_value_validation
from pydicom.errors import InvalidDicomError
from tqdm import tqdm

from monai_mil_ext.data import CohortReport
from monai_mil_ext.data.cohorts.check_report import Issue
from monai_mil_ext.utils import check_name

__all__ = ["READERS", "read_abdomen", "read_chest", "read_head"]

TAGS = ["SeriesInstanceUID", "PatientID", "ImagePositionPatient"]


class _Slice(NamedTuple):
    file: str  # relative to the folder of the competition
    place: float  # by which slices are sorted, ascending
    label: int


def read_head(source: Path) -> CohortReport:
    """RSNA 2019 intracranial haemorrhage: ``stage_2_train.csv`` and the flat folder ``stage_2_train``.

    A slice is positive if its row ``ID_<slice>_any`` is 1; a scan is a SeriesInstanceUID, a patient a PatientID, and
    the order is that of z in ImagePositionPatient: all three are in the DICOM headers only, which are all read. Slices
    without a file, or with one that can't be read, belong to no scan that could be known: each is reported.
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
            with disable_value_validation():  # the competition's UIDs, ID_..., are none by the standard
                header = dcmread(path, stop_before_pixels=True, specific_tags=TAGS)
                series, patient = str(header.SeriesInstanceUID), str(header.PatientID)
                place = float(header.ImagePositionPatient[2])
        except (InvalidDicomError, EOFError, AttributeError, TypeError, ValueError):
            report.skipped.append(Issue(name, "slice whose DICOM file has no readable series, patient and position"))
            continue
        patients[series].add(patient)
        unlabeled[series] += name not in labels
        scans[series].append(_Slice(str(path.relative_to(source)), place, labels.get(name, 0)))
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
            _label(report, labels, number, name, row["Label"])
    return labels


def read_chest(source: Path) -> CohortReport:
    """RSNA 2020 pulmonary embolism: ``train.csv`` and ``train/<study>/<series>/<slice>.dcm``.

    A slice is positive by ``pe_present_on_image``, the order is that of InstanceNumber in the headers, and every
    study counts as a patient, since nothing tells whose it is. A scan is left out if the files of its folder are not
    those of the table.
    """
    report = CohortReport("train.csv")
    uids = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]
    labels: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for number, row in _rows(source / report.name, [*uids, "pe_present_on_image"]):
        report.num_rows += 1
        study, series, name = (row[uid] for uid in uids)
        _label(report, labels[study, series], number, name, row["pe_present_on_image"])
    for (study, series), own in tqdm(labels.items(), desc="series", disable=None):
        folder = source / "train" / study / series
        slices, reason = _folder(source, folder, own, _instance_number)
        _add(report, series, study, slices, reason)
    _find_strangers(report, (source / "train").glob("*/*"), {(study, series) for study, series in labels})
    return report


def read_abdomen(source: Path) -> CohortReport:
    """RSNA 2023 abdominal trauma: three tables and ``train_images/<patient>/<series>/<number>.dcm``.

    Scans are the series of ``train_series_meta.csv``, patients those of ``train.csv``. A slice is positive if
    ``image_level_labels.csv`` has a row for it, whatever the injury, and a scan if one of its own slices is:
    ``train.csv`` speaks of the patient. The order is that of the numbers that files are called by. A scan is left out
    where its patient is not known, or a row names a slice that is not there.
    """
    report = CohortReport("train_series_meta.csv")
    known = {row["patient_id"] for _, row in _rows(source / "train.csv", ["patient_id"])}
    positive: dict[tuple[str, str], set[str]] = defaultdict(set)
    for _, row in _rows(source / "image_level_labels.csv", ["patient_id", "series_id", "instance_number"]):
        positive[row["patient_id"], row["series_id"]].add(row["instance_number"])
    found: set[tuple[str, str]] = set()
    for number, row in _rows(source / report.name, ["patient_id", "series_id"]):
        report.num_rows += 1
        patient, series = row["patient_id"], row["series_id"]
        if (patient, series) in found:
            report.skipped.append(Issue(f"row {number}", f"series {series} of patient {patient} once more"))
            continue
        found.add((patient, series))
        folder = source / "train_images" / _checked_name(patient) / _checked_name(series)
        names = {path.stem for path in folder.glob("*.dcm")}
        absent = positive[patient, series] - names
        labels = {name: int(name in positive[patient, series]) for name in names}
        slices, reason = _folder(source, folder, labels, lambda path: float(path.stem))
        reason = f"{len(absent)} labeled slices have no file" if absent and names else reason
        reason = reason if patient in known else "its patient is not in train.csv"
        _add(report, f"{patient}_{series}", patient, slices, reason)
    lost = sorted(key for key, numbers in positive.items() if numbers and key not in found)
    report.skipped += [Issue("_".join(key), "labels of slices of a series that is not in the table") for key in lost]
    _find_strangers(report, (source / "train_images").glob("*/*"), found)
    return report


READERS: dict[str, Callable[[Path], CohortReport]] = {
    "head": read_head,
    "chest": read_chest,
    "abdomen": read_abdomen,
}


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Rows one by one, with their number in the file: a table may have millions."""
    if not path.is_file():
        raise FileNotFoundError(f"`source` must be a folder with {path.name!r}, got none there.")
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        missing = [column for column in columns if column not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{path.name} must have the columns {missing}, got {list(reader.fieldnames or ())}.")
        yield from enumerate(reader, 2)


def _label(report: CohortReport, labels: dict[str, int], number: int, name: str, cell: str) -> None:
    """Take up a label of a slice; what is no label, or says another thing than a row before, is an error."""
    if cell not in ("0", "1"):
        report.errors.append(Issue(f"row {number}", f"the label of {name!r} must be 0 or 1, got {cell!r}"))
    elif name not in labels:
        labels[name] = int(cell)
    elif labels[name] == int(cell):
        report.notes.append(Issue(f"row {number}", f"{name} once more, with the same label"))
    else:
        report.errors.append(Issue(f"row {number}", f"{name!r} must have one label, got both 0 and 1"))


def _folder(
    source: Path, folder: Path, labels: Mapping[str, int], place: Callable[[Path], float]
) -> tuple[list[_Slice], str]:
    """Slices of a folder, and why it can't be used if it can't."""
    files = sorted(folder.glob("*.dcm"))
    names = {path.stem for path in files}
    if not files:
        return [], "no DICOM file in its folder"
    absent, unknown = len(labels.keys() - names), len(names - labels.keys())
    if absent or unknown:
        return [], f"{absent} of its slices have no file, {unknown} of its files are not in the table"
    try:
        slices = [_Slice(str(path.relative_to(source)), place(path), labels[path.stem]) for path in files]
    except (InvalidDicomError, EOFError, AttributeError, TypeError, ValueError):
        return [], "a DICOM file without a readable number"
    return slices, ""


def _instance_number(path: Path) -> float:
    return float(dcmread(path, stop_before_pixels=True, specific_tags=["InstanceNumber"]).InstanceNumber)


def _add(report: CohortReport, case: str, patient: str, slices: list[_Slice], reason: str) -> None:
    """Put a scan among the items, in order, or say why not."""
    for name in (case, patient):
        _checked_name(name)
    if reason:
        report.skipped.append(Issue(case, reason))
        return
    ordered = sorted(slices, key=lambda one: (one.place, one.file))
    twice = len(ordered) - len({one.place for one in ordered})
    if twice:
        report.notes.append(Issue(case, f"{twice} slices share their place with another, and go by the file's name"))
    label = max(one.label for one in ordered)
    report.items.append({"case_id": case, "patient": patient, "label": label, "slices": ordered})


def _checked_name(name: str) -> str:
    """Return a name from a table or a header if it is one that cannot lead out of its folder."""
    check_name(name=name)
    return name


def _find_strangers(report: CohortReport, folders: Iterator[Path], known: set[tuple[Any, ...]]) -> None:
    strange = sorted(path.name for path in folders if path.is_dir() and (path.parent.name, path.name) not in known)
    report.skipped += [Issue(name, "a folder that is not in the table") for name in strange]
