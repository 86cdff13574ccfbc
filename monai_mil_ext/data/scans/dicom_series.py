"""Sorted image slices of a DICOM series, checked to form one regular stack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .dicom_files import ONE_VALUE, DicomFolder, SeriesSlice, read_dicom_folder
from .slice_stack import sort_stack

__all__ = ["SeriesSlice", "check_stack", "find_series"]

NAMES = dict(
    zip(
        ("Modality", *ONE_VALUE),
        ("modalities", "studies", "patients", "patients", "frames of reference", "photometric interpretations"),
        strict=True,
    )
)


def find_series(folder: Path, series: str | None = None, irregular: str = "refuse") -> list[SeriesSlice]:
    """Find the slices of one series in a folder, or that of a file, sorted in ascending order along their normal.

    A slice is a DICOM object with one frame, a size, a position and an orientation. Files that are not DICOM, hidden
    files and other objects (RTSTRUCT, RTDOSE, SEG, SR, presentation states, multi-frame objects, ...) are ignored.

    Args:
        folder: folder of the files, without its subfolders, or a single file.
        series: UID, description or number of the series, if the folder has several.
        irregular: ``"refuse"``, or ``"allow"`` or ``"resample"`` for slices with gaps, steps that vary, or a shift
            against each other (gantry tilt).

    Raises:
        ValueError: when there is no slice, several series match, a file is damaged (no header, no pixels, fewer or more
            pixels than its size, a spacing or slope that is not positive), the slices differ in size, spacing,
            orientation, patient or study, or share a position. Messages contain modality, number and size of a series,
            and no name of a file.
        InputError: (a ``ValueError``) when ``irregular`` is ``"refuse"`` and the slices are not one regular stack.
    """
    content = read_dicom_folder(folder)
    if not content.slices:
        _check_undamaged([fault for uid, fault in content.faults if not uid])
        got = f"{content.rest}{_not_searched(folder)}"
        raise ValueError(f"`image` must be a folder with one series of DICOM image slices, got {got}.")
    slices = _choose_series(content.slices, series)
    check_stack(slices, content)
    return sort_stack(slices, irregular)


def check_stack(slices: Sequence[SeriesSlice], content: DicomFolder | None = None) -> None:
    """Raise ``ValueError`` unless slices are undamaged and have one grid, patient and study."""
    faults = [item.fault for item in slices if item.fault]
    if content is not None:
        faults += [fault for uid, fault in content.faults if uid in ("", slices[0].series[0])]
    _check_same_grid(slices)
    _check_undamaged(faults)
    for name, values in zip(NAMES.values(), zip(*(item.constants for item in slices), strict=True), strict=True):
        several = len({value for value in values if value})
        if several > 1:
            raise ValueError(f"`image` must be a series of one patient, study and kind, got {several} {name} in it.")


def _check_undamaged(faults: Sequence[str]) -> None:
    if faults:
        got = ", ".join(f"{n} DICOM file{'s'[: n > 1]} with {fault}" for fault, n in sorted(Counter(faults).items()))
        raise ValueError(f"`image` must be a readable, undamaged scan, got {got}.")


def _not_searched(folder: Path) -> str:
    number = sum(path.is_dir() for path in folder.iterdir()) if folder.is_dir() else 0
    return f"; {number} sub-folder{'s were' if number > 1 else ' was'} not searched" if number else ""


def _choose_series(slices: Sequence[SeriesSlice], series: str | None) -> list[SeriesSlice]:
    """Return the slices of the only series, or of the requested one."""
    wanted = [s for s in slices if series is None or str(series) in (s.series[0], s.series[2], s.description)]
    uids = {s.series[0] for s in wanted}
    if len(uids) == 1:
        return wanted
    available = Counter(s.series for s in (wanted if uids else slices))
    rows = [f"{n} slices of modality {modality}, series number {no}" for (_, modality, no), n in available.items()]
    text = f"{len(available)}: {'; '.join(sorted(rows))}."
    if series is None:
        raise ValueError(f"`image` must be a folder with one series, got {text} Choose one by `series`.")
    matches = "more than one of" if uids else "none of"
    raise ValueError(f"`series` must be UID, description or number of one series, got {matches} {text}")


def _check_same_grid(slices: Sequence[SeriesSlice]) -> None:
    if any(s.size[2] != 1 for s in slices):
        raise ValueError("`image` must be one 3D scalar volume, got DICOM slices in color.")
    first = slices[0]
    for name, same in (
        ("size", all(s.size == first.size for s in slices)),
        ("pixel spacing", all(np.allclose(s.spacing, first.spacing, atol=1e-4) for s in slices)),
        ("orientation", all(np.allclose(s.orientation, first.orientation, atol=1e-3) for s in slices)),
    ):
        if not same:
            raise ValueError(f"`image` must have slices of the same {name}, got a series that mixes them.")
