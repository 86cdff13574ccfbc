"""Conversion of DICOM SEG frames to a voxel mask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["fill_segments"]

OFF = 0.25  # largest distance of a frame's corner from that of its slice, in voxels


def fill_segments(
    segmentation: Any, segments: Mapping[int, str], affine: NDArray[np.float64], shape: tuple[int, int, int]
) -> NDArray[np.bool_]:
    """Build the mask of some segments from their frames; fractions of at least one half count as inside.

    Frames may be on any slices. ``Segmentation.get_volume`` of highdicom needs regularly spaced frames, so it fails if
    slices without a segment are omitted and the optional SpacingBetweenSlices is missing.

    Args:
        segmentation: dataset of the SEG: binary, fractional or a label map.
        segments: labels of the segments by number.
        affine: affine (4, 4) of the series, voxel index (column, row, slice) to RAS mm.
        shape: shape of its voxel array.

    Raises:
        ValueError: when a frame has another pixel grid than the slices of the series, or lies on none of them.
    """
    mask = np.zeros(shape, dtype=bool)
    pixels = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    half = segmentation.get("MaximumFractionalValue", 1) / 2
    labels = segmentation.SegmentationType == "LABELMAP"
    for frame, (number, frame_affine) in zip(pixels, _frames(segmentation), strict=True):
        if not labels and number not in segments:
            continue
        marked = np.isin(frame, list(segments)) if labels else frame >= half
        if marked.any():
            mask[:, :, _slice(frame_affine, frame.shape, affine, shape)] |= marked.T
    return mask


def _frames(segmentation: Any) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Iterate over segment number and affine (4, 3), pixel (column, row) to RAS mm, of every frame."""
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    for per_frame in segmentation.PerFrameFunctionalGroupsSequence:

        def group(name: str, per_frame: Any = per_frame) -> Any:
            return (per_frame if name in per_frame else shared)[name].value[0]

        has_number = "SegmentIdentificationSequence" in per_frame or "SegmentIdentificationSequence" in shared
        number = int(group("SegmentIdentificationSequence").ReferencedSegmentNumber) if has_number else 0
        directions = np.asarray(group("PlaneOrientationSequence").ImageOrientationPatient, dtype=float)
        spacing = np.asarray(group("PixelMeasuresSequence").PixelSpacing, dtype=float)
        corner = np.asarray(group("PlanePositionSequence").ImagePositionPatient, dtype=float)
        columns = np.stack([directions[:3] * spacing[1], directions[3:] * spacing[0], corner], axis=1)
        yield number, np.concatenate([np.diag([-1.0, -1.0, 1.0]) @ columns, [[0.0, 0.0, 1.0]]])


def _slice(
    frame: NDArray[np.float64], size: tuple[int, ...], affine: NDArray[np.float64], shape: tuple[int, int, int]
) -> int:
    """Return the index of the slice whose corners coincide with those of a frame."""
    rows, columns = size
    pixels = np.array([[0, columns - 1, 0], [0, 0, rows - 1], [1, 1, 1]], dtype=float)
    voxels = (np.linalg.inv(affine) @ frame @ pixels)[:3]
    k = round(float(voxels[2].mean()))
    expected = np.array([[0, columns - 1, 0], [0, 0, rows - 1], [k, k, k]])
    if (columns, rows) != shape[:2] or abs(voxels[:2] - expected[:2]).max() > OFF:
        raise ValueError("`reference` must be a SEG with the pixels of the series, got frames of another grid.")
    if not 0 <= k < shape[2] or abs(voxels[2] - k).max() > OFF:
        x, y, z = frame[:3, 2] * [-1, -1, 1]
        raise ValueError(
            "`reference` must be a SEG on slices of the series, got a frame at "
            f"({x:.1f}, {y:.1f}, {z:.1f}) mm (LPS), where there is no slice."
        )
    return k
