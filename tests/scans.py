"""Small synthetic scans on disk, with patient data in their DICOM headers that must never be passed on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType

import itk
import nibabel as nib
import nrrd
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    RTStructureSetStorage,
    generate_uid,
)

SECRETS = MappingProxyType(
    {
        "PatientName": "Secretname^Jane",
        "PatientID": "SECRETID4711",
        "PatientBirthDate": "19010203",
        "InstitutionName": "Secret Hospital",
    }
)
SLOPE, INTERCEPT = 2.0, -1024.0


def voxels(shape: tuple[int, int, int]) -> np.ndarray:
    """Return stored values of a voxel array (X, Y, Z), each different from its neighbors."""
    x, y, z = np.meshgrid(*map(np.arange, shape), indexing="ij")
    return (x + 20 * y + 300 * z).astype(np.int16)


def write_series(
    folder: Path,
    shape: tuple[int, int, int] = (6, 5, 4),
    spacing: tuple[float, float, float] = (0.9, 0.7, 2.5),
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    heights: np.ndarray | None = None,
    shift: float | Sequence[float] = 0.0,
    series: int = 1,
    suffix: str = ".dcm",
    **tags,
) -> np.ndarray:
    """Write a CT series whose file names are not in slice order, and return its rescaled voxel array.

    ``heights`` are the positions of the slices along their normal; ``shift`` in mm moves each slice along its rows from
    the one below (tilt), or by its own value.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored = voxels(shape)
    heights = np.arange(shape[2]) * spacing[2] if heights is None else heights
    shifts = np.arange(len(heights)) * shift if np.isscalar(shift) else shift
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    uid = f"1.2.826.0.1.{series}"
    for k, height in enumerate(heights):
        position = np.array([-10.0, -20.0, 30.0]) + height * np.cross(row, column) + shifts[k] * row
        ds = _header(CTImageStorage, "CT", uid, series)
        ds.Rows, ds.Columns, ds.PixelSpacing = shape[1], shape[0], [spacing[1], spacing[0]]
        ds.ImagePositionPatient = [round(float(v), 6) for v in position]
        ds.ImageOrientationPatient = [float(v) for v in orientation]
        ds.SliceThickness, ds.InstanceNumber = spacing[2], k + 1
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit, ds.PixelRepresentation, ds.SamplesPerPixel = 15, 1, 1
        ds.PhotometricInterpretation = "MONOCHROME2"
        ds.RescaleSlope, ds.RescaleIntercept = SLOPE, INTERCEPT
        ds.PixelData = stored[:, :, k].T.tobytes()
        for tag, value in tags.items():
            setattr(ds, tag, value)
        ds.save_as(folder / f"{(k * 7 + 3) % 11}_{series}_{k}{suffix}", enforce_file_format=True)
    return stored * SLOPE + INTERCEPT


def write_enhanced(
    path: Path,
    heights: Sequence[float],
    slopes: Sequence[float] = (),
    shape: tuple[int, int] = (6, 5),
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    **tags,
) -> np.ndarray:
    """Write an enhanced CT whose frames are at ``heights``, and return its voxel array (X, Y, Z) in stored order.

    The value of a pixel is its stored value times the slope of the frame.
    """
    stored = voxels((*shape, len(heights)))
    slopes = slopes or [1.0] * len(heights)
    origin, normal = np.array([-10.0, -20.0, 0.0]), np.cross(orientation[:3], orientation[3:])
    ds = _header(EnhancedCTImageStorage, "CT", "1.2.826.0.1.55", 55)
    ds.NumberOfFrames, ds.Rows, ds.Columns = len(heights), shape[1], shape[0]
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation, ds.SamplesPerPixel = 15, 1, 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.FrameOfReferenceUID = "1.2.826.0.1.78"
    ds.SharedFunctionalGroupsSequence = [
        _group(
            PixelMeasures={"PixelSpacing": [0.7, 0.9], "SliceThickness": 2.5},
            PlaneOrientation={"ImageOrientationPatient": list(orientation)},
        )
    ]
    ds.PerFrameFunctionalGroupsSequence = [
        _group(
            PlanePosition={"ImagePositionPatient": (origin + height * normal).tolist()},
            PixelValueTransformation={"RescaleSlope": slope, "RescaleIntercept": 0, "RescaleType": "HU"},
        )
        for height, slope in zip(heights, slopes, strict=True)
    ]
    ds.PixelData = stored.T.tobytes()
    for tag, value in tags.items():
        setattr(ds, tag, value)
    ds.save_as(path, enforce_file_format=True)
    return stored * np.array(slopes)


def _group(**sequences: dict) -> Dataset:
    group = Dataset()
    for name, values in sequences.items():
        item = Dataset()
        for tag, value in values.items():
            setattr(item, tag, value)
        setattr(group, f"{name}Sequence", [item])
    return group


def edit_dicom(path: Path, edit: Callable[[Dataset], object]) -> None:
    """Change the dataset of a file."""
    ds = dcmread(path)
    edit(ds)
    ds.save_as(path)


def set_in_group(group: Dataset, sequence: str, **values) -> None:
    """Set values in the item of a sequence of a functional group, which is added if it is missing."""
    if f"{sequence}Sequence" not in group:
        setattr(group, f"{sequence}Sequence", [Dataset()])
    for tag, value in values.items():
        setattr(group[f"{sequence}Sequence"][0], tag, value)


def write_structure_set(folder: Path) -> None:
    """Write an RTSTRUCT, which has no pixels, into a folder."""
    ds = _header(RTStructureSetStorage, "RTSTRUCT", "1.2.826.0.1.99", 99)
    ds.save_as(folder / "contours.dcm", enforce_file_format=True)


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    """Write a NIfTI file."""
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def write_nrrd(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    """Write an NRRD file with an affine in RAS mm."""
    header = {
        "space": "right-anterior-superior",
        "space directions": affine[:3, :3].T,
        "space origin": affine[:3, 3],
        "encoding": "raw",
    }
    nrrd.write(str(path), array, header)
    return path


def write_mha(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    """Write a MetaImage with an affine in RAS mm."""
    image = itk.image_from_array(np.ascontiguousarray(array.transpose(2, 1, 0)))
    lps = np.diag([-1.0, -1.0, 1.0]) @ affine[:3]
    spacing = np.linalg.norm(lps[:, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:, 3].tolist())
    image.SetDirection(itk.matrix_from_array(lps[:, :3] / spacing))
    itk.imwrite(image, str(path))
    return path


def _header(sop_class: str, modality: str, uid: str, number: int) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.826.0.1", uid
    ds.Modality, ds.SeriesNumber = modality, number
    for tag, value in SECRETS.items():
        setattr(ds, tag, value)
    return ds
