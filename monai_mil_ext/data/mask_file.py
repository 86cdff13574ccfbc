"""What was marked in a series, as a mask in its voxels: regions of an RTSTRUCT, segments of a SEG."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.utils import SpaceKeys, optional_import
from numpy.typing import NDArray

from .contours import fill_regions
from .dicom_series import SeriesSlice, find_series, series_affine
from .segment_frames import fill_segments

__all__ = ["find_marks", "read_marks"]

dcmread, _ = optional_import("pydicom", name="dcmread")
InvalidDicomError, _ = optional_import("pydicom.errors", name="InvalidDicomError")

MARKS = ("RTSTRUCT", "SEG")


def find_marks(path: str | os.PathLike[str]) -> Path | None:
    """Find the one RTSTRUCT or SEG that ``path`` is, or that the folder ``path`` has; None where there is none.

    Raises:
        ValueError: when a folder has several.
    """
    place = Path(path)
    if not place.is_dir():
        return place if _modality(place) in MARKS else None
    found = {file: _modality(file) for file in sorted(place.iterdir()) if file.is_file()}
    marks = [file for file, modality in found.items() if modality in MARKS]
    if len(marks) > 1:
        kinds = ", ".join(found[file] for file in marks)
        raise ValueError(f"`reference` must be a file where a folder has several RTSTRUCT or SEG, got {kinds}.")
    return marks[0] if marks else None


def read_marks(
    file: str | os.PathLike[str],
    scan: str | os.PathLike[str],
    names: Sequence[str] | None = None,
    series: str | None = None,
) -> MetaTensor:
    """Read regions or segments as a mask (1, X, Y, Z) of 0 and 1 in the voxels of the series that they belong to.

    Args:
        file: the RTSTRUCT or SEG.
        scan: folder of the series.
        names: of the regions (segments), whose union is taken; ``None`` takes the only one.
        series: UID, description or number of the series, where the folder has several.

    Raises:
        ValueError: when a name is not there, the object belongs to another series or frame of reference, or it marks
            a place where the series has no slice.
    """
    if not Path(scan).is_dir():
        raise ValueError(f"`image` must be the DICOM folder that the marks belong to, got {Path(scan).name!r}.")
    stack = find_series(Path(scan), series)
    marks = dcmread(file)
    _check_belongs(marks, stack[0])
    fill: Callable[..., NDArray[np.bool_]] = fill_regions if marks.Modality == "RTSTRUCT" else fill_segments
    affine = series_affine(stack)
    there = _names(marks)
    mask = fill(marks, _chosen(there, names), affine, (stack[0].size[1], stack[0].size[0], len(stack)))
    return MetaTensor(mask[None].astype(np.float32), affine=affine, meta={"space": SpaceKeys.RAS})


def _modality(file: Path) -> str:
    try:
        return str(dcmread(file, stop_before_pixels=True, specific_tags=["Modality"]).get("Modality", ""))
    except (InvalidDicomError, EOFError, FileNotFoundError):
        return ""


def _names(marks: Any) -> dict[int, str]:
    if marks.Modality == "RTSTRUCT":
        return {int(roi.ROINumber): str(roi.ROIName) for roi in marks.get("StructureSetROISequence") or ()}
    return {int(s.SegmentNumber): str(s.SegmentLabel) for s in marks.get("SegmentSequence") or ()}


def _chosen(there: dict[int, str], names: Sequence[str] | None) -> dict[int, str]:
    rows = ", ".join(map(repr, sorted(there.values()))) or "nothing"
    if names is None:
        if len(there) != 1:
            raise ValueError(f"`names` must be given where not exactly one thing is marked, got {rows}.")
        return there
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        if name not in there.values():
            near = difflib.get_close_matches(name, there.values(), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ValueError(f"`names` must be among those marked, {rows}, got {name!r}{hint}")
    return {number: name for number, name in there.items() if name in names}


def _check_belongs(marks: Any, one: SeriesSlice) -> None:
    frames = _all(marks, "FrameOfReferenceUID") | _all(marks, "ReferencedFrameOfReferenceUID")
    if frames and one.frame_of_reference and one.frame_of_reference not in frames:
        raise ValueError("`reference` must have the frame of reference of the series, got one drawn in another.")
    series = _all(marks, "SeriesInstanceUID", inside=True)
    if series and one.series[0] not in series:
        raise ValueError(
            f"`reference` must refer to the series of the scan, got one that refers to {len(series)} other."
        )


def _all(dataset: Any, keyword: str, inside: bool = False) -> set[str]:
    """Collect the values of a tag, at all depths of the sequences (``inside``: without the outermost)."""
    # frames and contours are thousands, and name no series
    skip = ("ROIContourSequence", "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")
    own = {str(dataset[keyword].value)} if keyword in dataset and not inside else set()
    items: Iterable[Any] = (
        item for element in dataset if element.VR == "SQ" and element.keyword not in skip for item in element.value
    )
    return own.union(*(_all(item, keyword) for item in items))
