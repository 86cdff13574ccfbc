"""Reader of one 3D scan, which refuses everything else."""

from __future__ import annotations

import importlib
import os
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config.type_definitions import PathLike
from monai.data import ITKReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple, optional_import
from numpy.typing import NDArray

from .dicom_series import SeriesSlice, find_series

__all__ = ["ScanReader"]

itk, _ = optional_import("itk", allow_namespace_pkg=True)
nib, _ = optional_import("nibabel")


class ScanReader(ITKReader):
    """Reader of one 3D scalar scan (DICOM folder, NIfTI or other ITK format) without patient data.

    In a folder, without its subfolders, it reads the only series of single-frame image slices, sorted along their
    normal; see :py:func:`monai_mil_ext.data.find_series` for ignored and refused files. Values are rescaled (slope,
    intercept) slice by slice. A series of one slice is a volume of depth 1 whose third spacing is the slice thickness,
    or 1 mm if there is none. The metadata contain the geometry and, of DICOM, the modality; no other tags.

    MONAI's :py:class:`monai.transforms.LoadImage` silently tries other readers when a reader passed to its constructor
    raises. Pass this reader in the call instead, as :py:class:`monai_mil_ext.transforms.LoadScan` does.

    Args:
        series: UID, description or number of the series, if the folder has several.

    Raises:
        FileNotFoundError: when there is no such file or folder.
        ValueError: when it is not one readable 3D scalar scan.

    Example:
        >>> ScanReader().read("no_such_scan.nii.gz")
        Traceback (most recent call last):
        ...
        FileNotFoundError: `image` must be a scan that exists, got 'no_such_scan.nii.gz'.
    """

    def __init__(self, series: str | None = None) -> None:
        super().__init__()
        self.series = series
        self._modality = ""

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> Any:
        """Read the only path in ``data`` as an image of ITK or nibabel."""
        paths = [Path(str(path)) for path in ensure_tuple(data)]
        if len(paths) != 1:
            raise ValueError(f"`image` must be the path of one scan, got {len(paths)} paths.")
        path = paths[0]
        if not path.exists():
            raise FileNotFoundError(f"`image` must be a scan that exists, got {path.name!r}.")
        self._modality = ""
        if path.name.lower().endswith((".nii", ".nii.gz")):
            return _read_nifti(path)
        image = self._read_folder(path) if path.is_dir() else _imread(str(path), path.name)
        _check_volume(itk.size(image), image.GetNumberOfComponentsPerPixel(), path.name)
        _refresh_import_caches()
        return image

    def get_data(self, img: Any) -> tuple[NDArray[Any], dict[str, Any]]:
        """Return the voxel array (X, Y, Z) and the geometry of an image that ``read`` returned."""
        array, meta = _nifti_data(img) if hasattr(img, "dataobj") else super().get_data(img)
        return array, meta | ({"modality": self._modality} if self._modality else {})

    def _get_meta_dict(self, img: Any) -> dict[str, Any]:
        """Return the spacing only, so that no tag of the scan is kept."""
        return {"spacing": np.asarray(img.GetSpacing())}

    def _read_folder(self, folder: Path) -> Any:
        slices = find_series(folder, self.series)
        self._modality = slices[0].series[1]
        # slices differ in slope and intercept, so the pixel type of the first one must not determine that of all
        image = _imread([str(s.path) for s in slices], folder.name, itk.F)
        if len(slices) == 1:
            _set_slice_spacing(image, slices[0])
        return image


def _set_slice_spacing(image: Any, item: SeriesSlice) -> None:
    spacing = list(image.GetSpacing())
    image.SetSpacing([*spacing[:2], item.thickness or 1.0])


def _imread(source: str | list[str], name: str, pixel_type: Any = None) -> Any:
    try:
        return itk.imread(source, pixel_type)
    except (RuntimeError, KeyError, TypeError):  # the last two for pixel types that ITK's Python lacks
        # ITK's own message contains the path, which may contain a patient's name
        raise ValueError(f"`image` must be a readable, undamaged scan, ITK can't read {name!r}.") from None


def _refresh_import_caches() -> None:
    """Invalidate Python's caches of relative folders in ``sys.path``.

    ITK changes the working directory while it loads its modules, so the caches may be wrong. MONAI adds a relative
    folder for the ``scripts`` of a bundle, which could not be imported afterwards.
    """
    if not all(os.path.isabs(folder) for folder in sys.path if folder):
        importlib.invalidate_caches()


def _read_nifti(path: Path) -> Any:
    """Read NIfTI with nibabel, since ITK changes NaN to 0, alters sheared affines and accepts truncated files."""
    try:
        image = nib.squeeze_image(nib.load(path))
        kind = image.get_data_dtype().kind
        _check_volume(image.shape, 1 if kind in "biuf" else 2, path.name)
        image.get_fdata(dtype=np.float32)  # raises on damaged data; cached by the image
    except (OSError, EOFError, zlib.error, nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError):
        raise ValueError(f"`image` must be a readable, undamaged scan, nibabel can't read {path.name!r}.") from None
    return image


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


def _check_volume(size: Sequence[int], components: int, name: str) -> None:
    if len(size) != 3 or components != 1:
        voxels = " x ".join(map(str, size))
        raise ValueError(
            f"`image` must be one 3D scalar volume, got {voxels} voxels of {components} components in {name!r}."
        )
