"""Reader of one 3D scan, which refuses everything else."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from monai.config.type_definitions import PathLike
from monai.data import ITKReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple
from numpy.typing import NDArray

from monai_mil_ext.utils import BagKeys, InputError, check_choice, check_local, optional_dependency
from monai_mil_ext.utils.remote import as_path, is_remote, local_copy

from .dicom_files import HeaderError, has_preamble, is_directory, read_header
from .dicom_frames import read_voxels
from .dicom_series import find_stack
from .scan_archives import is_zip, unpacked_scan
from .slice_stack import IRREGULAR
from .stack_grid import place_stack

__all__ = ["ScanReader"]

itk = optional_dependency("", "itk")
nib = optional_dependency("", "nibabel")

NIFTI, PAIR = (".nii", ".nii.gz"), (".hdr", ".img")
SERIES, ENHANCED = "DICOM series", "enhanced DICOM"
CONTAINERS = {
    ".nii": "NIfTI",
    ".nii.gz": "NIfTI",
    ".nrrd": "NRRD",
    ".nhdr": "NRRD",
    ".mha": "MetaImage",
    ".mhd": "MetaImage",
    ".hdr": "NIfTI",
    ".img": "NIfTI",
}
MM = {"meter": 1000.0, "micron": 0.001}  # by the unit of NIfTI
NO_SIDES = "The file states no orientation: sides, such as R and L, may be wrong."
NO_SIZE = "The file states no size of its voxels: 1 mm was taken."
HEADER = 2**16  # bytes of a text header that are read
ANATOMICAL = re.compile(
    rb"(?m)^space:.*(left|right).*(anterior|posterior).*(superior|inferior)|^space:\s*(las|lps|ras)"
)
UNDAMAGED = "`image` must be a readable, undamaged scan, got"
# files that users take for scans, by their first bytes
KINDS = {
    b"": "an empty file",
    b"PK\x05\x06": "an empty zip archive",
    b"\x1f\x8b": "a gzip archive, which must be unpacked first,",
    b"7z\xbc\xaf": "a 7z archive, which must be unpacked first,",
    b"Rar!": "a RAR archive, which must be unpacked first,",
}


class ScanReader(ITKReader):
    """Reader of one 3D scalar scan (DICOM folder or file, NIfTI or other ITK format) without patient data.

    In a folder and its sub-folders, it reads the only series of image slices or frames of enhanced objects, sorted
    along their normal; see :py:func:`monai_mil_ext.data.find_series` for what is left out and refused. Values are
    rescaled (slope, intercept) slice by slice. A series of one slice is a volume of depth 1 whose third spacing is the
    slice thickness, or 1 mm if there is none. A zip archive of a series or of one volume is read like its content; a
    DICOMDIR, like its folder.

    The metadata contain the geometry, ``container`` (kind of file), ``notes`` (sentences on what was left out) and, of
    DICOM, ``modality`` and ``instance_number`` of each slice; no other tags.

    Values of a CT or PET with MONOCHROME1 are those that its slope and intercept give, as in pydicom, since photometric
    interpretation concerns their display only (ITK inverts them); MONOCHROME1 of other modalities is refused.

    Whatever ITK, nibabel or pydicom raise on a file becomes an :py:class:`monai_mil_ext.utils.InputError`, a
    ``ValueError``, without the name of a file.

    MONAI's :py:class:`monai.transforms.LoadImage` silently tries other readers when a reader passed to its constructor
    raises. Pass this reader in the call instead, as :py:class:`monai_mil_ext.transforms.LoadScan` does.

    Args:
        series: UID, description or number of the series, if the folder has several.
        stack: number or name of the stack, if the series has several: other orientations, times, echoes, b values, ...
        irregular: what to do with a series whose slices have gaps, steps that vary, or a shift against each other
            (gantry tilt). ``"refuse"`` raises. ``"allow"`` reads the slices as they are: the affine is the nearest
            regular one, and the metadata have ``slice_position`` (Z, 3), the true position of each slice.
            ``"resample"`` makes a regular grid with the usual step, linearly; where there are no data, it has the
            minimum of the scan. Both add a sentence to the ``notes`` of the metadata, and change no regular series.

    Raises:
        FileNotFoundError: when there is no such file or folder.
        InputError: (a ``ValueError``) when ``irregular`` is ``"refuse"`` and the slices are not one regular stack.
        ValueError: when it is not one readable 3D scalar scan, or its voxels have no positive, finite size.

    Example:
        >>> ScanReader().read("no_such_scan.nii.gz")
        Traceback (most recent call last):
        ...
        FileNotFoundError: `image` must be a scan that exists, got the path of no file or folder.
    """

    def __init__(self, series: str | None = None, stack: str | int | None = None, irregular: str = "refuse") -> None:
        _ = itk.imread  # the error of a missing package names the command to install it, unlike MONAI's
        super().__init__()
        check_choice("irregular", irregular, IRREGULAR)
        self.series = series
        self.stack = stack
        self.irregular = irregular
        self._about: dict[str, Any] = {}
        self._copy: ExitStack | None = None  # of an object in a store, which is kept until its voxels are read

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> Any:
        """Read the only path in ``data`` as an image of ITK or nibabel."""
        paths = [Path(str(path)) for path in ensure_tuple(data)]
        if len(paths) != 1:
            raise ValueError(f"`image` must be the path of one scan, got {len(paths)} paths.")
        path = as_path(paths[0])
        if is_remote(path):
            self._copy = ExitStack()
            return self.read(self._copy.enter_context(local_copy(path)))
        check_local(image=path)
        if not (os.path.isfile(path) or os.path.isdir(path)):  # no pipe either, which would be waited for
            raise FileNotFoundError("`image` must be a scan that exists, got the path of no file or folder.")
        self._about = {str(BagKeys.CONTAINER): "", str(BagKeys.NOTES): []}
        try:
            return self._read(path)
        except ValueError as error:
            known = error if isinstance(error, InputError) else InputError(str(error))
            known.add_facts(container=self._about[BagKeys.CONTAINER])
            raise known from None

    def get_data(self, img: Any) -> tuple[NDArray[Any], dict[str, Any]]:
        """Return the voxel array (X, Y, Z) and the geometry of an image that ``read`` returned."""
        array, meta = _nifti_data(img) if hasattr(img, "dataobj") else super().get_data(img)
        if self._copy is not None:
            self._copy.close()
            self._copy = None
        affine = np.asarray(meta[MetaKeys.AFFINE], dtype=float)
        if not np.isfinite(affine).all() or not abs(np.linalg.det(affine[:3, :3])) > 0:
            message = f"`image` must have voxels of a positive, finite size, got the affine {affine.tolist()}."
            raise InputError(message, container=self._about.get(BagKeys.CONTAINER, ""), shape=array.shape)
        return array, {**meta, **{str(key): value for key, value in self._about.items()}}

    def _get_meta_dict(self, img: Any) -> dict[str, Any]:
        """Return the spacing only, so that no tag of the scan is kept."""
        return {"spacing": np.asarray(img.GetSpacing())}

    def _read(self, path: Path, prefix: str = "") -> Any:
        """Read a folder or file; ``prefix`` begins the name of its container."""
        name = path.name.lower()
        kind = next((kind for suffix, kind in CONTAINERS.items() if name.endswith(suffix)), "")
        is_nifti = name.endswith(NIFTI) or (name.endswith(PAIR) and path.is_file() and not has_preamble(path))
        kind = "" if name.endswith(PAIR) and not is_nifti else kind
        self._about[BagKeys.CONTAINER] = f"{prefix}{kind}" if kind else ""
        if path.is_dir():
            return self._read_series(path, prefix)
        if is_nifti:
            image, self._about[BagKeys.NOTES] = _read_nifti(path)
            if not hasattr(image.header, "get_xyzt_units"):
                self._about[BagKeys.CONTAINER] = f"{prefix}Analyze"
            return image
        if not prefix and is_zip(path):
            self._about[BagKeys.CONTAINER] = "zip"
            with unpacked_scan(path) as content:
                return self._read(content, "zip of a ")
        try:
            header = read_header(path)
        except HeaderError as error:
            raise InputError(f"{UNDAMAGED} a DICOM file with {error}.") from None
        if header is not None:
            return self._read_series(path.parent if is_directory(header) else path, prefix)
        image = _imread(str(path), kind_of_file(path))
        check_volume(itk.size(image), image.GetNumberOfComponentsPerPixel())
        self._about[BagKeys.NOTES] = _header_notes(path, kind)
        _refresh_import_caches()
        return image

    def _read_series(self, path: Path, prefix: str) -> Any:
        """Read the series of a folder, or of a file."""
        self._about[BagKeys.CONTAINER] = prefix + SERIES
        slices, notes = find_stack(path, self.series, self.stack, self.irregular)
        if slices[0].frame is not None:
            self._about[BagKeys.CONTAINER] = f"{'zip of an ' if prefix else ''}{ENHANCED}"
        self._about[BagKeys.NOTES] = notes
        self._about[BagKeys.INSTANCE_NUMBER] = np.array([item.instance_number for item in slices])
        if slices[0].series[1]:
            self._about[BagKeys.MODALITY] = slices[0].series[1]
        array, affine, facts = place_stack(read_voxels(slices), slices, self.irregular)
        if facts and self.irregular == "resample":
            self._about.pop(BagKeys.INSTANCE_NUMBER)
        self._about.update(facts, notes=[*notes, *facts.get(BagKeys.NOTES, [])])
        # no image of NIfTI, whose header can't express every affine
        return nib.spatialimages.SpatialImage(array, affine)


def _imread(source: str, kind: str) -> Any:
    shown = itk.Object.GetGlobalWarningDisplay()
    itk.Object.SetGlobalWarningDisplay(False)  # the warnings contain the path, too
    try:
        return itk.imread(source)
    except Exception:
        # the file alone is the cause of whatever ITK raises: RuntimeError, and also KeyError, TypeError and
        # UnboundLocalError of its Python code; the text contains the path, which may contain a patient's name
        raise ValueError(f"{UNDAMAGED} {kind} that ITK can't read.") from None
    finally:
        itk.Object.SetGlobalWarningDisplay(shown)


def kind_of_file(path: Path) -> str:
    with path.open("rb") as file:
        begin = file.read(8)
    return next(
        (kind for magic, kind in KINDS.items() if begin == magic or (magic and begin.startswith(magic))), "a file"
    )


def _refresh_import_caches() -> None:
    """Invalidate Python's caches of relative folders in ``sys.path``.

    ITK changes the working directory while it loads its modules, so the caches may be wrong. MONAI adds a relative
    folder for the ``scripts`` of a bundle, which could not be imported afterwards.
    """
    if not all(os.path.isabs(folder) for folder in sys.path if folder):
        importlib.invalidate_caches()


def _read_nifti(path: Path) -> tuple[Any, list[str]]:
    """Read NIfTI with nibabel, since ITK changes NaN to 0, alters sheared affines and accepts truncated files.

    Returns:
        image with its affine in mm, and notes.
    """
    try:
        image = nib.squeeze_image(nib.load(path))
        kind = image.get_data_dtype().kind
        if kind in "biuf":
            image.get_fdata(dtype=np.float32)  # raises on damaged data; cached by the image
    except Exception:  # as in ``_imread``: OSError, zlib.error, ImageFileError, OverflowError, MemoryError, ...
        raise ValueError(f"{UNDAMAGED} a NIfTI file that nibabel can't read.") from None
    check_volume(image.shape, 1 if kind in "biuf" else 2)
    has_codes = [tag in image.header and int(image.header[tag]) > 0 for tag in ("sform_code", "qform_code")]
    notes = [] if any(has_codes) else [NO_SIDES]
    unit = image.header.get_xyzt_units()[0] if hasattr(image.header, "get_xyzt_units") else ""
    if unit in MM:
        affine = np.diag([MM[unit]] * 3 + [1.0]) @ np.asarray(image.affine, dtype=float)
        image = nib.Nifti1Image(image.get_fdata(dtype=np.float32), affine)
        notes.append(f"Lengths in {unit}s were converted to mm.")
    return image, notes


def _header_notes(path: Path, kind: str) -> list[str]:
    """Return notes on what the header of an NRRD or MetaImage file does not state; raise if it states NaN."""
    with path.open("rb") as file:
        text = file.read(HEADER).replace(b"\r\n", b"\n").lower()
    if kind == "MetaImage":
        stated = re.search(rb"(?m)^element(spacing|size)\b", text.partition(b"elementdatafile")[0])
        return [] if stated else [NO_SIZE]
    if kind != "NRRD":
        return []
    header = text.partition(b"\n\n")[0]
    sizes = re.search(rb"(?m)^(spacings|space directions):(.*)$", header)
    if sizes and sizes[1] == b"spacings" and b"nan" in sizes[2]:
        raise InputError("`image` must have voxels of a positive, finite size, got NaN.")
    has_sides = ANATOMICAL.search(header) and b"\nspace directions:" in header
    return [*([] if sizes else [NO_SIZE]), *([] if has_sides else [NO_SIDES])]


def _nifti_data(image: Any) -> tuple[NDArray[np.float32], dict[str, Any]]:
    affine = np.asarray(image.affine, dtype=float)
    meta = {
        "spacing": nib.affines.voxel_sizes(affine),
        MetaKeys.ORIGINAL_AFFINE: affine,
        MetaKeys.AFFINE: affine.copy(),
        MetaKeys.SPACE: SpaceKeys.RAS,
        MetaKeys.SPATIAL_SHAPE: np.asarray(image.shape),
        MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),
    }
    return image.get_fdata(dtype=np.float32), meta


def check_volume(size: Sequence[int], components: int) -> None:
    if len(size) != 3 or components != 1:
        voxels = " x ".join(map(str, size))
        raise ValueError(f"`image` must be one 3D scalar volume, got {voxels} voxels of {components} components.")
