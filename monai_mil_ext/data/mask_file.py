"""Reader of DICOM annotations (RTSTRUCT regions, SEG segments) as masks in the voxels of their series."""

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

MODALITIES = ("RTSTRUCT", "SEG")


def find_marks(path: str | os.PathLike[str]) -> Path | None:
    """Return the only RTSTRUCT or SEG at ``path``, a file or a folder, or ``None`` if there is none.

    Raises:
        ValueError: when the folder has several.
    """
    source = Path(path)
    if not source.is_dir():
        return source if _modality(source) in MODALITIES else None
    modalities = {file: _modality(file) for file in sorted(source.iterdir()) if file.is_file()}
    annotations = [file for file, modality in modalities.items() if modality in MODALITIES]
    if len(annotations) > 1:
        got = ", ".join(modalities[file] for file in annotations)
        raise ValueError(f"`reference` must be a file if the folder has several RTSTRUCT or SEG, got {got}.")
    return annotations[0] if annotations else None


def read_marks(
    file: str | os.PathLike[str],
    scan: str | os.PathLike[str],
    names: Sequence[str] | None = None,
    series: str | None = None,
) -> MetaTensor:
    """Read regions or segments as a mask (1, X, Y, Z) of 0 and 1 in the voxels of their series.

    Args:
        file: the RTSTRUCT or SEG file.
        scan: folder of the series.
        names: names of regions (segments), whose union is the mask; ``None`` takes the only one.
        series: UID, description or number of the series, if the folder has several.

    Raises:
        ValueError: when a name does not exist, the object belongs to another series or frame of reference, or it marks
            a position where the series has no slice.
    """
    if not Path(scan).is_dir():
        raise ValueError(f"`image` must be the DICOM folder of the annotated series, got {Path(scan).name!r}.")
    stack = find_series(Path(scan), series)
    annotation = dcmread(file)
    _check_same_series(annotation, stack[0])
    fill: Callable[..., NDArray[np.bool_]] = fill_regions if annotation.Modality == "RTSTRUCT" else fill_segments
    affine = series_affine(stack)
    chosen = _choose_names(_names(annotation), names)
    mask = fill(annotation, chosen, affine, (stack[0].size[1], stack[0].size[0], len(stack)))
    return MetaTensor(mask[None].astype(np.float32), affine=affine, meta={"space": SpaceKeys.RAS})


def _modality(file: Path) -> str:
    try:
        return str(dcmread(file, stop_before_pixels=True, specific_tags=["Modality"]).get("Modality", ""))
    except (InvalidDicomError, EOFError, FileNotFoundError):
        return ""


def _names(annotation: Any) -> dict[int, str]:
    if annotation.Modality == "RTSTRUCT":
        return {int(roi.ROINumber): str(roi.ROIName) for roi in annotation.get("StructureSetROISequence") or ()}
    return {int(s.SegmentNumber): str(s.SegmentLabel) for s in annotation.get("SegmentSequence") or ()}


def _choose_names(available: dict[int, str], names: Sequence[str] | None) -> dict[int, str]:
    listed = ", ".join(map(repr, sorted(available.values()))) or "nothing"
    if names is None:
        if len(available) != 1:
            raise ValueError(f"`names` must be given unless exactly one region is annotated, got {listed}.")
        return available
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        if name not in available.values():
            near = difflib.get_close_matches(name, available.values(), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ValueError(f"`names` must be among the annotated ones, {listed}, got {name!r}{hint}")
    return {number: name for number, name in available.items() if name in names}


def _check_same_series(annotation: Any, item: SeriesSlice) -> None:
    frames = _tag_values(annotation, "FrameOfReferenceUID") | _tag_values(annotation, "ReferencedFrameOfReferenceUID")
    if frames and item.frame_of_reference and item.frame_of_reference not in frames:
        raise ValueError("`reference` must have the frame of reference of the series, got one drawn in another.")
    series = _tag_values(annotation, "SeriesInstanceUID", nested_only=True)
    if series and item.series[0] not in series:
        raise ValueError(
            f"`reference` must refer to the series of the scan, got one that refers to {len(series)} other."
        )


def _tag_values(dataset: Any, keyword: str, nested_only: bool = False) -> set[str]:
    """Collect the values of a tag at all levels of nested sequences, or ``nested_only`` without the top level."""
    # these have thousands of items and refer to no series
    skip = ("ROIContourSequence", "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")
    values = {str(dataset[keyword].value)} if keyword in dataset and not nested_only else set()
    items: Iterable[Any] = (
        item for element in dataset if element.VR == "SQ" and element.keyword not in skip for item in element.value
    )
    return values.union(*(_tag_values(item, keyword) for item in items))
