"""Header of a scan, and a sample of its voxels, without reading the whole scan."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.utils import InputError, check_local, optional_dependency
from monai_mil_ext.utils.remote import is_remote, local_copy

from .dicom_files import HeaderError, has_preamble, is_directory, read_header
from .dicom_frames import read_voxels
from .dicom_series import find_stack
from .scan_archives import is_zip, unpacked_scan
from .scan_reader import CONTAINERS, ENHANCED, NIFTI, PAIR, SERIES, UNDAMAGED, check_volume, kind_of_file
from .slice_stack import series_affine

__all__ = ["ScanHeader", "read_scan_header"]

itk = optional_dependency("", "itk")
nib = optional_dependency("", "nibabel")

PLANES = ("sagittal", "coronal", "axial")  # by the axis of RAS along the normal of the slices
THICKER = 1.1  # ratio of spacings from which the largest is the distance of slices
SAMPLE = 2**21  # bytes of a compressed file that are decompressed for a sample of its voxels
MAX_SAMPLES = 16  # that are read until voxels differ
BLOCK = 2**20
ITK_LOCK = Lock()  # ITK loads its modules at their first use, and its warnings are global
TO_RAS = np.diag([-1.0, -1.0, 1.0])
MM = {"meter": 1000.0, "micron": 0.001}


class ScanHeader(NamedTuple):
    """Header of a scan: its geometry, modality and a sample of its voxels."""

    container: str
    shape: tuple[int, ...]  # (X, Y, Z)
    affine: NDArray[np.float64]  # (4, 4), RAS mm
    modality: str = ""
    sample: tuple[float, float] | None = None  # lowest and highest of some voxels; None if none were read
    notes: tuple[str, ...] = ()

    @property
    def spacing(self) -> tuple[float, ...]:
        """Size of a voxel along each axis in mm."""
        return tuple(float(size) for size in np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def plane(self) -> str:
        """Plane of the slices: across the axis of the largest spacing, or of equal ones across the third axis."""
        spacing = self.spacing
        axis = int(np.argmax(spacing))
        axis = axis if spacing[axis] > THICKER * sorted(spacing)[1] else 2
        return PLANES[int(np.argmax(abs(self.affine[:3, axis])))]

    def num_slices(self, plane: str) -> int:
        """Return the number of slices in a plane, cut along the nearest axis."""
        rows = abs(self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0))[PLANES.index(plane)]
        return int(self.shape[int(np.argmax(rows))])


def read_scan_header(
    path: str | os.PathLike[str],
    series: str | None = None,
    stack: str | int | None = None,
    irregular: str = "refuse",
    sample: bool = True,
) -> ScanHeader:
    """Read the header of a scan, with the checks of :py:class:`ScanReader` that need no voxels.

    A zip archive is unpacked. A sample is the middle slice of a DICOM series or of a NIfTI file, 2 MiB of a compressed
    NIfTI file, and nothing of other files.

    Args:
        path: DICOM folder or file, or other file.
        series: UID, description or number of the series, if the folder has several.
        stack: number or name of the stack, if the series has several.
        irregular: see :py:class:`ScanReader`.
        sample: whether to read a sample of the voxels.

    Raises:
        FileNotFoundError: when there is no such file or folder.
        InputError: (a ``ValueError``) when it is not one readable 3D scalar scan, as far as its header says.

    Example:
        >>> import nibabel
        >>> nibabel.Nifti1Image(np.zeros((6, 5, 4), np.int16), np.diag([1, 1, 3, 1])).to_filename("scan.nii")
        >>> header = read_scan_header("scan.nii")
        >>> header.container, header.shape, header.spacing, header.plane, header.sample
        ('NIfTI', (6, 5, 4), (1.0, 1.0, 3.0), 'axial', (0.0, 0.0))
    """
    if is_remote(path):
        with local_copy(path) as copy:
            return read_scan_header(copy, series, stack, irregular, sample)
    check_local(image=path)
    file = Path(path)
    if not (os.path.isfile(file) or os.path.isdir(file)):
        raise FileNotFoundError("`image` must be a scan that exists, got the path of no file or folder.")
    header = _read(file, (series, stack, irregular), sample)
    spacing = header.spacing
    if not np.isfinite(header.affine).all() or not abs(np.linalg.det(header.affine[:3, :3])) > 0:
        text = f"`image` must have voxels of a positive, finite size, got {' x '.join(f'{mm:g}' for mm in spacing)} mm."
        raise InputError(text, container=header.container, shape=header.shape)
    return header


def _read(path: Path, choice: tuple[Any, Any, str], sample: bool, prefix: str = "") -> ScanHeader:
    name = path.name.lower()
    kind = next((kind for suffix, kind in CONTAINERS.items() if name.endswith(suffix)), "")
    if path.is_dir():
        return _read_series(path, choice, sample, prefix)
    if name.endswith(NIFTI) or (name.endswith(PAIR) and not has_preamble(path)):
        return _read_nifti(path, f"{prefix}{kind}", sample)
    if not prefix and is_zip(path):
        with unpacked_scan(path) as content:
            return _read(content, choice, sample, "zip of a ")
    try:
        dicom = read_header(path)
    except HeaderError as error:
        raise InputError(f"{UNDAMAGED} a DICOM file with {error}.", container="DICOM") from None
    if dicom is not None:
        return _read_series(path.parent if is_directory(dicom) else path, choice, sample, prefix)
    return _read_with_itk(path, f"{prefix}{kind}")


def _read_series(path: Path, choice: tuple[Any, Any, str], sample: bool, prefix: str) -> ScanHeader:
    slices, notes = find_stack(path, *choice)
    container = f"{prefix}{SERIES}" if slices[0].frame is None else f"{'zip of an ' if prefix else ''}{ENHANCED}"
    rows, columns, _ = slices[0].size
    values = None
    if sample:
        voxels = read_voxels([slices[len(slices) // 2]])
        values = float(voxels.min()), float(voxels.max())
    shape = (columns, rows, len(slices))
    return ScanHeader(container, shape, series_affine(slices), slices[0].series[1], values, tuple(notes))


def _read_nifti(path: Path, container: str, sample: bool) -> ScanHeader:
    try:
        whole = nib.load(path)
        image = nib.squeeze_image(whole)
        shape, kind = tuple(int(size) for size in image.shape), image.get_data_dtype().kind
        affine = np.asarray(image.affine, dtype=float)
        is_analyze = not hasattr(image.header, "get_xyzt_units")
        unit = "" if is_analyze else image.header.get_xyzt_units()[0]
    except Exception:  # of many kinds for a damaged file, with its path in the text
        raise InputError(f"{UNDAMAGED} a NIfTI file that nibabel can't read.", container=container) from None
    container = container.replace("NIfTI", "Analyze") if is_analyze else container
    try:
        check_volume(shape, 1 if kind in "biuf" else 2)
    except ValueError as error:
        raise InputError(str(error), container=container, shape=shape) from None
    affine = np.diag([MM.get(unit, 1.0)] * 3 + [1.0]) @ affine
    try:
        values = _sample_nifti(whole, shape) if sample else None
    except (OSError, EOFError, ValueError, OverflowError, zlib.error):
        text = f"{UNDAMAGED} a NIfTI file with fewer voxels than its header says, or damaged ones."
        raise InputError(text, container=container, shape=shape) from None
    return ScanHeader(container, shape, affine, "", values)


def _sample_nifti(image: Any, shape: Sequence[int]) -> tuple[float, float] | None:
    """Return the lowest and highest finite voxel of a sample; raise if the file ends before its last voxel."""
    proxy = image.dataobj
    path = Path(proxy.file_like if isinstance(proxy.file_like, (str, os.PathLike)) else image.get_filename())
    end = int(proxy.offset) + int(np.prod(shape, dtype=np.int64)) * proxy.dtype.itemsize
    if path.name.lower().endswith(".gz"):
        _check_end(path, end)
        flat = _first_voxels(path, proxy, end)
    else:
        if path.stat().st_size < end:
            raise EOFError
        flat = _middle(proxy, image.shape)
    values = flat[np.isfinite(flat)]
    return (float(values.min()), float(values.max())) if values.size else None


def _middle(proxy: Any, shape: Sequence[int]) -> NDArray[Any]:
    """Return the middle slice along the last axis that has several, which lies in one piece in the file."""
    axis = max((i for i, size in enumerate(shape) if size > 1), default=0)
    index = tuple(size // 2 if i == axis else slice(None) for i, size in enumerate(shape))
    return np.asarray(proxy[index])


def _first_voxels(path: Path, proxy: Any, end: int) -> NDArray[Any]:
    """Return the first voxels of a compressed file, up to some that differ, since the first slices may be empty."""
    size = proxy.dtype.itemsize
    with gzip.open(path) as file:
        file.read(int(proxy.offset))
        for _ in range(MAX_SAMPLES):
            content = file.read(SAMPLE)
            raw = np.frombuffer(content[: len(content) // size * size], proxy.dtype)
            if len(content) < SAMPLE or raw.min() < raw.max():
                break
    return np.asarray(raw[: (end - int(proxy.offset)) // size] * proxy.slope + proxy.inter)


def _check_end(path: Path, end: int) -> None:
    """Raise ``EOFError`` if a gzip file holds fewer bytes than its header says.

    The last four bytes state the length of an undamaged file of one member; others are decompressed to their end.
    """
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4))
        stated = int.from_bytes(file.read(4), "little")
    if end % 2**32 <= stated < end % 2**32 + BLOCK:
        return
    length = 0
    with gzip.open(path) as content:
        while block := content.read(BLOCK):
            length += len(block)
    if length < end:
        raise EOFError


def _read_with_itk(path: Path, container: str) -> ScanHeader:
    shape: tuple[int, ...] = ()
    with ITK_LOCK, suppress(Exception):  # of many kinds, with the path in the text
        shown = itk.Object.GetGlobalWarningDisplay()
        itk.Object.SetGlobalWarningDisplay(False)  # the warnings contain the path, too
        image = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
        image.SetFileName(str(path))
        image.ReadImageInformation()
        axes = range(image.GetNumberOfDimensions())
        shape = tuple(int(image.GetDimensions(i)) for i in axes)
        components = int(image.GetNumberOfComponents())
        affine = _itk_affine([[*image.GetDirection(i)] for i in axes], [image.GetSpacing(i) for i in axes])
        itk.Object.SetGlobalWarningDisplay(shown)
    if not shape:
        raise InputError(f"{UNDAMAGED} {kind_of_file(path)} that ITK can't read.", container=container)
    try:
        check_volume(shape, components)
    except ValueError as error:
        raise InputError(str(error), container=container, shape=shape) from None
    return ScanHeader(container, shape, affine)


def _itk_affine(directions: Sequence[Sequence[float]], spacing: Sequence[float]) -> NDArray[np.float64]:
    """Return the affine in RAS, without its origin, of the directions of the axes."""
    affine = np.eye(4)
    if len(spacing) == 3:
        affine[:3, :3] = TO_RAS @ np.array(directions, dtype=float).T * np.array(spacing)
    return affine
