"""Sorted image slices of a DICOM series, checked to form one regular stack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from monai_mil_ext.utils import InputError

from .dicom_files import ONE_VALUE
from .dicom_folder import DIRECTORY, DicomFolder, read_dicom_folder, scan_files
from .dicom_slices import SeriesSlice
from .dicom_stacks import choose_series, choose_stack, drop_copies, drop_lone_slices, drop_scouts
from .slice_stack import sort_stack

__all__ = ["DicomStack", "SeriesSlice", "check_stack", "find_series", "find_stack"]

VOLUMES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".zip")
NAMES = dict(
    zip(
        ("Modality", *ONE_VALUE),
        ("modalities", "studies", "patients", "patients", "frames of reference", "photometric interpretations"),
        strict=True,
    )
)


class DicomStack(NamedTuple):
    """Sorted slices of one series, and sentences on what was left out."""

    slices: list[SeriesSlice]
    notes: list[str]


def find_series(
    folder: Path, series: str | None = None, stack: str | int | None = None, irregular: str = "refuse"
) -> list[SeriesSlice]:
    """Find the slices of one series in a folder, or those of a file, sorted in ascending order along their normal.

    A slice is a DICOM object with one frame, a size, a position and an orientation, or a frame of an enhanced object
    (CT, MR) with functional groups. Files that are not DICOM, hidden files and other objects (RTSTRUCT, RTDOSE, SEG,
    SR, presentation states, ...) are ignored. Scouts among other slices, exact copies, and a lone slice of another
    orientation or size are left out.

    Args:
        folder: folder of the files, whose sub-folders are searched too, or a single file.
        series: UID, description or number of the series, if the folder has several.
        stack: number or name of the stack, if the series has several: other orientations, times, echoes, b values, ...
        irregular: ``"refuse"``, or ``"allow"`` or ``"resample"`` for slices with gaps, steps that vary, or a shift
            against each other (gantry tilt).

    Raises:
        InputError: (a ``ValueError``) when there is no slice, several series or stacks match, a file is damaged (no
            header, no pixels, fewer or more pixels than its size, a spacing or slope that is not positive), the slices
            differ in size, spacing, patient or study, or share a position, or ``irregular`` is ``"refuse"`` and they
            are not one regular stack. Messages contain modality, number and size of a series, and no name of a file.
    """
    return find_stack(folder, series, stack, irregular).slices


def find_stack(
    folder: Path, series: str | None = None, stack: str | int | None = None, irregular: str = "refuse"
) -> DicomStack:
    """Find the slices as :py:func:`find_series`, with notes on what was left out."""
    content = read_dicom_folder(folder)
    if not content.slices:
        _check_undamaged([fault for uid, fault in content.faults if not uid])
        place = "folder" if folder.is_dir() else "file"
        volumes = sum(path.name.lower().endswith(VOLUMES) for path in scan_files(folder)) if folder.is_dir() else 0
        others = f", but {volumes} NIfTI, NRRD, MetaImage or zip, each to be given as a file" if volumes else ""
        text = f"`image` must be a {place} with one series of DICOM image slices, got {content.rest}{others}."
        raise InputError(text, container="folder" if folder.is_dir() else "DICOM")
    notes = [_left_out(kind, n) for kind, n in sorted(content.others.items()) if kind != DIRECTORY]
    slices, left_out = choose_series(content.slices, series)
    try:
        for drop in (drop_scouts, drop_copies, drop_lone_slices):
            slices, texts = drop(slices)
            left_out += texts
        slices, texts = choose_stack(slices, stack)
        check_stack(slices, content)
        return DicomStack(sort_stack(slices, irregular), [*left_out, *texts, *notes, *_polarity(slices)])
    except ValueError as error:
        message = " ".join([str(error), *left_out])
        container = "" if slices[0].frame is None else "enhanced DICOM"
        shape, spacing = (*slices[0].size[1::-1], len(slices)), slices[0].spacing[::-1].tolist()
        facts = {"container": container, "shape": shape, "spacing": spacing} | getattr(error, "facts", {})
        raise InputError(message, getattr(error, "option", ""), **facts) from None


def _left_out(kind: str, count: int) -> str:
    return f"{count} object{'s' * (count > 1)} {kind} {'were' if count > 1 else 'was'} left out."


def _polarity(slices: Sequence[SeriesSlice]) -> list[str]:
    inverted = slices[0].constants[-1].strip().upper() == "MONOCHROME1"
    return ["Pixels are MONOCHROME1, shown inverted, and values are those of the modality."] if inverted else []


def check_stack(slices: Sequence[SeriesSlice], content: DicomFolder | None = None) -> None:
    """Raise ``ValueError`` unless slices are undamaged and have one grid, patient and study."""
    faults = [fault for _, fault in dict.fromkeys((item.path, item.fault) for item in slices) if fault]
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
