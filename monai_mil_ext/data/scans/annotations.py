"""Masks of a scan, read from RTSTRUCT contours with pydicom and from DICOM SEG with highdicom."""

from __future__ import annotations

import difflib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.data import MetaTensor
from monai.utils import MetaKeys, SpaceKeys
from numpy.typing import NDArray

from monai_mil_ext.utils import check_local, optional_dependency

from .dicom_files import has_preamble
from .dicom_series import find_series
from .dicom_slices import SeriesSlice
from .slice_stack import StackGeometry, slice_affines
from .stack_grid import place_stack

__all__ = ["fill_regions", "fill_segments", "find_annotation", "read_annotation_mask"]

pydicom = optional_dependency("dicom", "pydicom")
Polygon = optional_dependency("dicom", "matplotlib.path", "Path")

MODALITIES = ("RTSTRUCT", "SEG")
GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
OFF_PLANE = 0.25  # largest distance of a contour from its slice, as a fraction of the slice spacing
OFF_GRID = 0.25  # largest distance of a corner of a frame from that of its slice, in voxels


def find_annotation(path: str | os.PathLike[str]) -> Path | None:
    """Return the only RTSTRUCT or SEG at ``path``, a file or a folder, or ``None`` if there is none.

    Raises:
        ValueError: when the folder has several.
    """
    check_local(reference=path)
    source = Path(path)
    if not source.is_dir():
        return source if _modality(source) in MODALITIES else None
    modalities = {file: _modality(file) for file in sorted(source.iterdir()) if file.is_file()}
    annotations = [file for file, modality in modalities.items() if modality in MODALITIES]
    if len(annotations) > 1:
        got = ", ".join(modalities[file] for file in annotations)
        raise ValueError(f"`reference` must be a file if the folder has several RTSTRUCT or SEG, got {got}.")
    return annotations[0] if annotations else None


def read_annotation_mask(
    file: str | os.PathLike[str],
    scan: str | os.PathLike[str],
    names: Sequence[str] | None = None,
    series: str | None = None,
    stack: str | int | None = None,
    irregular: str = "refuse",
) -> MetaTensor:
    """Read regions or segments as a mask (1, X, Y, Z) of 0 and 1 in the voxels of their series.

    Args:
        file: the RTSTRUCT or SEG file.
        scan: folder of the series, or file of an enhanced object.
        names: names of regions (segments), whose union is the mask; ``None`` takes the only one.
        series: UID, description or number of the series, if the folder has several.
        stack: number or name of the stack, if the series has several.
        irregular: see :py:class:`monai_mil_ext.data.ScanReader`; of a voxel that is resampled, at least half must be
            in the mask.

    Raises:
        ValueError: when a name does not exist, the object belongs to another series or frame of reference, or it marks
            a position where the series has no slice.
    """
    if not (Path(scan).is_dir() or (Path(scan).is_file() and has_preamble(Path(scan)))):
        raise ValueError("`image` must be the DICOM folder of the annotated series, or its enhanced file, got another.")
    slices = find_series(Path(scan), series, stack, irregular)
    annotation = pydicom.dcmread(file)
    _check_same_series(annotation, slices[0])
    fill: Callable[..., NDArray[np.bool_]] = fill_regions if annotation.Modality == "RTSTRUCT" else fill_segments
    chosen = _choose_names(_names(annotation), names)
    mask = fill(annotation, chosen, slices).astype(np.float32)
    values, affine, facts = place_stack(mask, slices, irregular)
    meta = {"space": SpaceKeys.RAS, MetaKeys.ORIGINAL_AFFINE: affine, **facts}
    return MetaTensor((values[None] >= 0.5).astype(np.float32), affine=affine, meta=meta)


def _modality(file: Path) -> str:
    try:
        if not has_preamble(file):
            return ""
        return str(pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["Modality"]).get("Modality", ""))
    except (EOFError, FileNotFoundError):
        return ""


def _names(annotation: Any) -> dict[int, str]:
    if annotation.Modality == "RTSTRUCT":
        return {int(roi.ROINumber): str(roi.ROIName) for roi in annotation.get("StructureSetROISequence") or ()}
    segments = {int(s.SegmentNumber): str(s.SegmentLabel) for s in annotation.get("SegmentSequence") or ()}
    return {number: name for number, name in segments.items() if number}  # 0 is the background of a label map


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
    skip = ("ROIContourSequence", *GROUPS)
    values = {str(dataset[keyword].value)} if keyword in dataset and not nested_only else set()
    items: Iterable[Any] = (
        item for element in dataset if element.VR == "SQ" and element.keyword not in skip for item in element.value
    )
    return values.union(*(_tag_values(item, keyword) for item in items))


def fill_regions(plan: Any, regions: Mapping[int, str], stack: Sequence[SeriesSlice]) -> NDArray[np.bool_]:
    """Fill the closed planar contours of some regions; an inner contour of a region is a hole (XOR).

    A contour too small to contain the center of a voxel marks the voxel at the contour's center.

    Args:
        plan: dataset of the RTSTRUCT.
        regions: names of the regions by ROI number.
        stack: sorted slices of the series.

    Raises:
        ValueError: when a region has no closed contour, or a contour lies on no slice or outside its pixels.
    """
    contours = {int(roi.ReferencedROINumber): roi.get("ContourSequence") or () for roi in plan.ROIContourSequence}
    grid = _SliceGrid.of(stack)
    mask = np.zeros(grid.shape, dtype=bool)
    for number, name in regions.items():
        closed = [
            c for c in contours.get(number, ()) if c.get("ContourGeometricType", "CLOSED_PLANAR") == "CLOSED_PLANAR"
        ]
        if not closed:
            raise ValueError(f"`names` must be regions with closed planar contours, got {name!r} without one.")
        region = np.zeros(grid.shape, dtype=bool)
        for contour in closed:
            points = np.asarray(contour.ContourData, dtype=float).reshape(-1, 3)
            _fill(region, grid, name, points)
        mask |= region
    return mask


class _SliceGrid(NamedTuple):
    """Pixels of slices, each at its own position."""

    to_voxels: NDArray[np.float64]  # (4, 4) from RAS mm to column, row and usual steps from the first slice
    places: NDArray[np.float64]  # (Z, 3) first voxel of each slice in these coordinates
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, stack: Sequence[SeriesSlice]) -> _SliceGrid:
        affines = slice_affines(stack)
        to_voxels = np.linalg.inv(affines[0]).astype(np.float64)
        places = np.stack([(to_voxels @ affine[:, 3])[:3] for affine in affines])
        return cls(to_voxels, places, (stack[0].size[1], stack[0].size[0], len(stack)))

    def locate(self, points: NDArray[np.float64]) -> tuple[int, NDArray[np.float64]]:
        """Return the slice nearest to points (n, 3) in RAS mm, and their coordinates (n, 3) from its first voxel."""
        voxels = points @ self.to_voxels[:3, :3].T + self.to_voxels[:3, 3]
        k = int(abs(self.places[:, 2] - voxels[:, 2].mean()).argmin())
        return k, voxels - self.places[k]


def _fill(region: NDArray[np.bool_], grid: _SliceGrid, name: str, points: NDArray[np.float64]) -> None:
    k, voxels = grid.locate(points * [-1, -1, 1])
    if abs(voxels[:, 2]).max() > OFF_PLANE:
        center = ", ".join(f"{v:.1f}" for v in points.mean(axis=0))
        raise ValueError(
            f"`names` must be regions drawn on slices of the series, got a contour of {name!r} around ({center}) mm "
            f"(LPS), where there is no slice."
        )
    low = np.ceil(voxels[:, :2].min(axis=0)).astype(int)
    high = np.floor(voxels[:, :2].max(axis=0)).astype(int)
    if (high < -1).any() or (low > region.shape[:2]).any():
        raise ValueError(f"`names` must be regions inside the pixels of the series, got {name!r} outside on slice {k}.")
    low, high = np.maximum(low, 0), np.minimum(high, np.array(region.shape[:2]) - 1)
    x, y = np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1), indexing="ij")
    inside = Polygon(voxels[:, :2]).contains_points(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(x.shape)
    if inside.any():
        region[low[0] : high[0] + 1, low[1] : high[1] + 1, k] ^= inside
    else:
        i, j = np.clip(np.rint(voxels[:, :2].mean(axis=0)).astype(int), 0, np.array(region.shape[:2]) - 1)
        region[i, j, k] = True


def fill_segments(segmentation: Any, segments: Mapping[int, str], stack: Sequence[SeriesSlice]) -> NDArray[np.bool_]:
    """Build the mask of some segments from their frames; fractions of at least one half count as inside.

    Args:
        segmentation: dataset of the SEG: binary, fractional or a label map. Frames without a segment may be omitted.
        segments: labels of the segments by number.
        stack: sorted slices of the series. If they are irregular, frames must refer to them.

    Raises:
        ValueError: when a frame has another pixel grid than the slices of the series, or lies on none of them.
    """
    grid, half = _SliceGrid.of(stack), segmentation.get("MaximumFractionalValue", 1) / 2
    if StackGeometry.of(stack).fault():
        marked = (_segments_by_source(segmentation, segments, stack) >= half).any(axis=-1).transpose(2, 1, 0)
        if marked.shape != grid.shape:
            raise ValueError("`reference` must be a SEG with the pixels of the series, got frames of another grid.")
        return np.asarray(marked)
    step = float(np.linalg.norm(np.linalg.inv(grid.to_voxels)[:3, 2]))
    volume = _segment_volume(segmentation, segments, step)
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine  # indices of slice, row and column to mm
    mask = np.zeros(grid.shape, dtype=bool)
    for k, plane in enumerate(volume.array):
        marked = (plane >= half).any(axis=-1)
        if marked.any():
            frame = np.stack([to_ras[:, 2], to_ras[:, 1], to_ras @ [k, 0, 0, 1]], axis=1)
            mask[:, :, _slice(frame, marked.shape, grid)] |= marked.T
    return mask


def _segment_volume(segmentation: Any, segments: Mapping[int, str], step: float) -> Any:
    """Return the chosen segments as a volume (slices, rows, columns, segments) of highdicom."""
    hd = optional_dependency("dicom", "highdicom.seg")  # takes long to import
    groups = [group for name in GROUPS for group in segmentation.get(name) or ()]
    if not all(segmentation.get(name) for name in GROUPS):
        raise ValueError("`reference` must be a SEG on slices of the series, got one without functional groups.")
    for measures in (item for group in groups for item in group.get("PixelMeasuresSequence", ())):
        # both are often missing, and without them highdicom can't tell omitted frames from irregular ones
        measures.SpacingBetweenSlices = measures.SliceThickness = step
    options = {"combine_segments": False, "rescale_fractional": False, "atol": OFF_GRID * step}
    with _segmentation_errors():
        return hd.Segmentation.from_dataset(segmentation, copy=False).get_volume(
            segment_numbers=list(segments), **options
        )


def _segments_by_source(
    segmentation: Any, segments: Mapping[int, str], stack: Sequence[SeriesSlice]
) -> NDArray[np.uint8]:
    """Return the chosen segments (slices, rows, columns, segments) by the slices that their frames refer to."""
    hd = optional_dependency("dicom", "highdicom.seg")
    tag = "SOPInstanceUID"
    uids = [str(pydicom.dcmread(item.path, stop_before_pixels=True, specific_tags=[tag])[tag].value) for item in stack]
    options = {"rescale_fractional": False, "assert_missing_frames_are_empty": True}
    with _segmentation_errors():
        found = hd.Segmentation.from_dataset(segmentation, copy=False)
        return np.asarray(found.get_pixels_by_source_instance(uids, segment_numbers=list(segments), **options))


@contextmanager
def _segmentation_errors() -> Iterator[None]:
    try:
        yield
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError, sqlite3.Error) as error:
        text = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"`reference` must be a SEG on slices of the series, got one with a fault: {text}.") from None


def _slice(frame: NDArray[np.float64], size: tuple[int, ...], grid: _SliceGrid) -> int:
    """Return the index of the slice whose corners coincide with those of a frame."""
    rows, columns = size
    pixels = np.array([[0, columns - 1, 0], [0, 0, rows - 1], [1, 1, 1]], dtype=float)
    k, voxels = grid.locate((frame @ pixels)[:3].T)
    if (columns, rows) != grid.shape[:2] or abs(voxels[:, :2] - pixels[:2].T).max() > OFF_GRID:
        raise ValueError("`reference` must be a SEG with the pixels of the series, got frames of another grid.")
    if abs(voxels[:, 2]).max() > OFF_GRID:
        x, y, z = frame[:3, 2] * [-1, -1, 1]
        raise ValueError(
            "`reference` must be a SEG on slices of the series, got a frame at "
            f"({x:.1f}, {y:.1f}, {z:.1f}) mm (LPS), where there is no slice."
        )
    return k
