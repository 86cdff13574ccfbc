"""Whole slides in DICOM: levels, label and overview of a series, without compression."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from tests.make_slide import levels_of

__all__ = ["write_dicom"]

Array = np.ndarray[Any, Any]
SLIDE_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"
TILE = 256


def write_dicom(
    folder: Path, image: Array, mpp: float = 0.5, levels: int = 3, beside: bool = True, pyramid: str = ""
) -> Path:
    """Write a folder with a file for each level (the smallest first), and for label and overview if ``beside``."""
    folder.mkdir(parents=True, exist_ok=True)
    series = dict.fromkeys(("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"), "")
    series = {name: generate_uid(entropy_srcs=[str(folder), name]) for name in series}
    for k, level in enumerate(levels_of(image, levels)):
        path = folder / f"{levels - k}{pyramid[-4:]}.dcm"
        _write(path, level, series, mpp * image.shape[1] / level.shape[1], "VOLUME" if k == 0 else "RESAMPLED", pyramid)
    if beside:
        _write(folder / "8.dcm", image[:200, :200], series, mpp, "LABEL", "")
        _write(folder / "9.dcm", image[:250, :250], series, mpp, "OVERVIEW", "")
    return folder


def _write(path: Path, image: Array, series: dict[str, str], mpp: float, kind: str, pyramid: str) -> None:
    height, width = image.shape[:2]
    rows, columns = -(-height // TILE), -(-width // TILE)
    padded = np.full((rows * TILE, columns * TILE, 3), 255, dtype=np.uint8)
    padded[:height, :width] = image
    frames = padded.reshape(rows, TILE, columns, TILE, 3).swapaxes(1, 2)
    data = Dataset()
    data.update(series)
    if pyramid:
        data.PyramidUID = pyramid
    data.SOPClassUID, data.SOPInstanceUID = SLIDE_CLASS, generate_uid()
    data.Modality, data.PatientID, data.PatientName = "SM", "1", "Miller^Jane"
    derived = "DERIVED" if kind == "RESAMPLED" else "ORIGINAL"
    data.ImageType = (
        [derived, "PRIMARY", "VOLUME", "RESAMPLED"] if kind == "RESAMPLED" else [derived, "PRIMARY", kind, "NONE"]
    )
    data.Rows = data.Columns = TILE
    data.NumberOfFrames = rows * columns
    data.TotalPixelMatrixRows, data.TotalPixelMatrixColumns = height, width
    data.TotalPixelMatrixFocalPlanes = data.NumberOfOpticalPaths = 1
    data.DimensionOrganizationType = "TILED_FULL"
    data.ImagedVolumeWidth, data.ImagedVolumeHeight = width * mpp / 1000, height * mpp / 1000
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    measures = Dataset()
    measures.PixelSpacing = [mpp / 1000, mpp / 1000]
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    data.SharedFunctionalGroupsSequence = [shared]
    data.PixelData = np.ascontiguousarray(frames).tobytes()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    pydicom.dcmwrite(path, data, enforce_file_format=True)
