"""DICOM annotations of the synthetic series of ``tests.scans``: contours (RTSTRUCT) and segments (SEG)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage

from monai_mil_ext.data import find_series
from monai_mil_ext.data.scans.slice_stack import series_affine

FRAME = "1.2.826.0.1.77"  # frame of reference UID


def square(folder: Path, k: float, center: tuple[float, float], half: float) -> np.ndarray:
    """Return the corners (4, 3) in LPS mm of a square on slice ``k`` around a voxel, with half its side in voxels."""
    (x, y), signs = center, [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    voxels = np.array([[x + a * half, y + b * half, k, 1] for a, b in signs])
    return (voxels @ series_affine(find_series(folder)).T)[:, :3] * [-1, -1, 1]


def write_contours(
    path: Path,
    regions: Mapping[str, Sequence[np.ndarray]],
    frame: str = FRAME,
    series: str = "1.2.826.0.1.1",
    kind: str = "CLOSED_PLANAR",
) -> Path:
    """Write an RTSTRUCT of named regions, each with contours (n, 3) in LPS mm."""
    plan = Dataset()
    plan.file_meta = FileMetaDataset()
    plan.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    plan.SOPClassUID, plan.SOPInstanceUID, plan.Modality = RTStructureSetStorage, "1.2.3", "RTSTRUCT"
    plan.SeriesInstanceUID = "1.2.826.0.1.99"
    referenced, study, reference = Dataset(), Dataset(), Dataset()
    referenced.SeriesInstanceUID = series
    study.RTReferencedSeriesSequence = [referenced]
    reference.FrameOfReferenceUID, reference.RTReferencedStudySequence = frame, [study]
    plan.ReferencedFrameOfReferenceSequence = [reference]
    plan.StructureSetROISequence, plan.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(regions.items(), 1):
        roi, roi_contours = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, frame
        roi_contours.ReferencedROINumber = number
        roi_contours.ContourSequence = [_contour(points, kind) for points in contours]
        plan.StructureSetROISequence.append(roi)
        plan.ROIContourSequence.append(roi_contours)
    plan.save_as(path, enforce_file_format=True)
    return path


def write_segments(
    path: Path, folder: Path, masks: Mapping[str, np.ndarray], kind: str = "BINARY", irregular: str = "refuse"
) -> Path:
    """Write a SEG of named masks (X, Y, Z) of a series."""
    headers = [dcmread(file.path, stop_before_pixels=True) for file in find_series(folder, irregular=irregular)]
    for header in headers:
        for tag in ("PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"):
            setattr(header, tag, "")
    pixels = np.stack([mask.transpose(2, 1, 0) for mask in masks.values()], axis=-1)
    code = hd.sr.CodedConcept("111099", "DCM", "Selected region")
    segments = [
        hd.seg.SegmentDescription(i, name, code, code, hd.seg.SegmentAlgorithmTypeValues.MANUAL)
        for i, name in enumerate(masks, 1)
    ]
    segmentation = hd.seg.Segmentation(
        headers, pixels, kind, segments, "1.2.3.4", 7, "1.2.3.5", 1, "tests", "tests", "1", "1"
    )
    segmentation.save_as(path)
    return path


def _contour(points: np.ndarray, kind: str) -> Dataset:
    contour = Dataset()
    contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(points)
    contour.ContourData = [round(float(v), 4) for v in points.ravel()]
    return contour
