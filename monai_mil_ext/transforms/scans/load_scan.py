"""Transforms that load a scan with strict checks and without patient data."""

from __future__ import annotations

import os
import warnings
from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import LoadImage, MapTransform, Transform
from monai.utils.enums import TransformBackends

from monai_mil_ext.data import ScanReader
from monai_mil_ext.data.scans.slice_stack import IRREGULAR
from monai_mil_ext.utils import BagKeys, check_choice

__all__ = ["LoadScan", "LoadScanD", "LoadScanDict", "LoadScand"]


class LoadScan(Transform):
    """Load a scan from a DICOM folder or a file as a float32 :py:class:`monai.data.MetaTensor` (1, X, Y, Z).

    Unlike :py:class:`monai.transforms.LoadImage`, it refuses ambiguous or damaged scans, see
    :py:class:`monai_mil_ext.data.ScanReader`. The metadata have no DICOM tags and paths, but affine (RAS, mm), spacing
    and shape, the ``lowest`` and ``highest`` value of the scan, ``container`` and ``notes`` and, for DICOM,
    ``modality`` and ``instance_number``.

    Args:
        series: UID, description or number of the series to load from a DICOM folder with several.
        hounsfield: whether the next transform is a window of CT. A scan that has no Hounsfield units then gives a
            warning: one of another modality, or with values from 0 to 255 only.
        stack: number or name of the stack to load from a series with several, as the error of such a series lists them.
        irregular: ``"refuse"``, ``"allow"`` or ``"resample"`` for a DICOM series with gaps, varying steps or a tilted
            gantry, see :py:class:`monai_mil_ext.data.ScanReader`.

    Raises:
        FileNotFoundError: if the scan does not exist.
        ValueError: if it is not a single 3D scalar scan with finite voxels.
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        series: str | None = None,
        hounsfield: bool = False,
        stack: str | int | None = None,
        irregular: str = "refuse",
    ) -> None:
        check_choice("irregular", irregular, IRREGULAR)
        self.series = series
        self.stack = stack
        self.hounsfield = hounsfield
        self.irregular = irregular

    def __call__(
        self, path: str | os.PathLike[str], series: str | None = None, stack: str | int | None = None
    ) -> MetaTensor:
        """Load the scan at ``path``; ``series`` and ``stack`` override those of the constructor."""
        # passed in the call, because LoadImage tries other readers if one passed to its constructor raises
        reader = ScanReader(series or self.series, self.stack if stack is None else stack, self.irregular)
        image: MetaTensor = _load_image()(path, reader=reader)
        wrong = int((~torch.isfinite(image)).sum())
        if wrong:
            raise ValueError(f"`image` must have finite voxels, got {wrong} that are NaN or infinite.")
        image.meta.pop("filename_or_obj", None)
        image.meta["lowest"], image.meta["highest"] = (float(value) for value in image.as_tensor().aminmax())
        if self.hounsfield:
            _warn_unless_hounsfield(image.meta)
        return image


def _warn_unless_hounsfield(meta: Mapping[str, Any]) -> None:
    low, high, modality = meta["lowest"], meta["highest"], meta.get("modality", "CT")
    if modality != "CT":
        warnings.warn(f"`image` must be a CT for a window in Hounsfield units, got modality {modality}.", stacklevel=3)
    elif low == high:
        warnings.warn(f"`image` must have voxels that differ, got {low:g} in all of them.", stacklevel=3)
    elif low >= 0 and high <= 255:
        text = f"`image` must have Hounsfield units, from about -1000 in air on, got values {low:g}..{high:g}."
        warnings.warn(text, stacklevel=3)


@cache
def _load_image() -> LoadImage:
    return LoadImage(image_only=True, ensure_channel_first=True)


class LoadScand(MapTransform):
    """Dictionary form of :py:class:`LoadScan`.

    Args:
        keys: items with the path of a scan or of a mask with the geometry of a scan.
        series: see :py:class:`LoadScan`; an item ``series`` takes precedence.
        hounsfield: see :py:class:`LoadScan`.
        stack: see :py:class:`LoadScan`; an item ``stack`` takes precedence.
        irregular: see :py:class:`LoadScan`.
        allow_missing_keys: whether to skip missing keys.
    """

    backend = LoadScan.backend

    def __init__(
        self,
        keys: KeysCollection,
        series: str | None = None,
        hounsfield: bool = False,
        stack: str | int | None = None,
        irregular: str = "refuse",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.load = LoadScan(series, hounsfield, stack, irregular)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load the scan of each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.load(d[key], d.get(BagKeys.SERIES), d.get(BagKeys.STACK))
        return d


LoadScanD = LoadScanDict = LoadScand
