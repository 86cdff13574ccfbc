"""Sorted image slices of a DICOM series, checked to form one regular stack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.utils import optional_dependency

__all__ = ["SeriesSlice", "find_series", "series_affine"]

pydicom = optional_dependency("dicom", "pydicom")

TAGS = [
    "Modality",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "FrameOfReferenceUID",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PixelSpacing",
    "SliceThickness",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "NumberOfFrames",
]
NO_IMAGE = {"RTDOSE", "RTIMAGE", "RTPLAN", "RTSTRUCT", "SEG", "SR", "PR", "KO", "REG", "DOC", "FID", "RWV"}
RELATIVE, ABSOLUTE = 0.01, 0.01  # tolerance of positions: 1 % of the spacing plus 0.01 mm


class SeriesSlice(NamedTuple):
    """Geometry and series of an image slice, from its header."""

    path: Path
    series: tuple[str, str, str]  # UID, modality, number
    size: tuple[int, int, int]  # rows, columns, samples per pixel
    spacing: NDArray[np.float64]  # (2,) mm
    position: NDArray[np.float64]  # (3,) mm, LPS
    orientation: NDArray[np.float64]  # (6,) directions of a row and a column
    thickness: float | None
    description: str = ""
    frame_of_reference: str = ""


def find_series(folder: Path, series: str | None = None) -> list[SeriesSlice]:
    """Find the slices of one series in a folder, sorted in ascending order along their normal.

    A slice is a DICOM object with one frame, a size, a position and an orientation. Files that are not DICOM and other
    objects (RTSTRUCT, RTDOSE, SEG, SR, presentation states, multi-frame objects, ...) are ignored.

    Args:
        folder: folder of the files, without its subfolders.
        series: UID, description or number of the series, if the folder has several.

    Raises:
        ValueError: when there is no slice, several series match, or the slices are not one regular stack: they differ
            in size, spacing or orientation, share a position, have gaps, or are shifted against each other (gantry
            tilt). Messages contain modality, number and size of a series only.
    """
    slices: list[SeriesSlice] = []
    others: Counter[str] = Counter()
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS)
        except (pydicom.errors.InvalidDicomError, EOFError):
            continue
        item = _slice(path, header)
        if item is None:
            others[str(header.get("Modality", None) or "unknown")] += 1
        else:
            slices.append(item)
    if not slices:
        rest = ", ".join(f"{n} of modality {m}" for m, n in sorted(others.items())) or "no DICOM object"
        raise ValueError(f"`image` must be a folder with one series of DICOM image slices, got {rest}.")
    slices = _choose_series(slices, series)
    _check_same_grid(slices)
    return _sorted_stack(slices)


def series_affine(stack: Sequence[SeriesSlice]) -> NDArray[np.float64]:
    """Return the affine (4, 4), voxel index (column, row, slice) to RAS mm, of the sorted slices of a series."""
    first, last = stack[0], stack[-1]
    row, column = first.orientation[:3], first.orientation[3:]
    along = np.cross(row, column) * (first.thickness or 1.0)
    step = (last.position - first.position) / (len(stack) - 1) if len(stack) > 1 else along
    affine = np.eye(4)
    affine[:3] = np.stack([row * first.spacing[1], column * first.spacing[0], step, first.position], axis=1)
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _slice(path: Path, header: Any) -> SeriesSlice | None:
    required = ("Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")
    values = {tag: header.get(tag, None) for tag in required}
    modality = str(header.get("Modality", ""))
    frames = header.get("NumberOfFrames", None) or 1
    if modality in NO_IMAGE or frames > 1 or any(value is None for value in values.values()):
        return None
    return SeriesSlice(
        path=path,
        series=(str(header.get("SeriesInstanceUID", "")), modality, str(header.get("SeriesNumber", None))),
        size=(int(values["Rows"]), int(values["Columns"]), int(header.get("SamplesPerPixel", None) or 1)),
        spacing=np.asarray(values["PixelSpacing"], dtype=float),
        position=np.asarray(values["ImagePositionPatient"], dtype=float),
        orientation=np.asarray(values["ImageOrientationPatient"], dtype=float),
        thickness=header.get("SliceThickness", None),
        description=str(header.get("SeriesDescription", None) or ""),
        frame_of_reference=str(header.get("FrameOfReferenceUID", None) or ""),
    )


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


def _sorted_stack(slices: Sequence[SeriesSlice]) -> list[SeriesSlice]:
    normal = np.cross(slices[0].orientation[:3], slices[0].orientation[3:])
    if not np.isclose(np.linalg.norm(normal), 1, atol=1e-3):
        raise ValueError(
            "`image` must have slices with orthogonal row and column directions of length one, got others."
        )
    heights = np.array([s.position @ normal for s in slices])
    order = np.argsort(heights, kind="stable")
    stack = [slices[i] for i in order]
    if len(stack) > 1:
        _check_steps(heights[order])
        _check_untilted(np.stack([s.position for s in stack]), normal, float(stack[0].spacing.min()))
    return stack


def _check_steps(heights: NDArray[np.float64]) -> None:
    """Raise unless ``heights`` (mm, ascending) are evenly spaced."""
    steps = np.diff(heights)
    repeated = np.flatnonzero(steps < ABSOLUTE)
    if len(repeated):
        raise ValueError(
            f"`image` must have one slice per position, got two at {heights[repeated[0]]:g} mm"
            f" ({len(repeated)} slices too many; repeated acquisitions in one series?)."
        )
    usual = float(np.sort(steps)[(len(steps) - 1) // 2])
    odd = np.flatnonzero(abs(steps - usual) > RELATIVE * usual + ABSOLUTE)
    if len(odd):
        k = odd[0]
        missing = sum(max(round(step / usual) - 1, 0) for step in steps[odd])
        raise ValueError(
            f"`image` must have evenly spaced slices, got a step of {steps[k]:g} mm between the slices at "
            f"{heights[k]:g} and {heights[k + 1]:g} mm where {usual:g} mm is usual ({missing} slices seem missing)."
        )


def _check_untilted(positions: NDArray[np.float64], normal: NDArray[np.float64], pixel: float) -> None:
    """Raise if slices are shifted within their plane, since a tilted stack is not a regular grid."""
    along = (positions - positions[0]) @ normal
    shift = np.linalg.norm(positions - positions[0] - along[:, None] * normal, axis=1)
    step = float(shift.max()) / (len(positions) - 1)
    if step > RELATIVE * along[-1] / (len(positions) - 1) + ABSOLUTE or shift.max() > pixel / 2:
        raise ValueError(
            "`image` must have slices stacked along their normal, got a stack shifted by "
            f"{shift.max():.3g} mm in the plane of its slices (gantry tilt?); resample it to a regular grid first."
        )
