"""Loading a scan as MONAI does, strictly and without anything that names its patient."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import LoadImage, MapTransform, Transform
from monai.utils.enums import TransformBackends

from monai_mil_ext.data import ScanReader
from monai_mil_ext.utils import BagKeys

__all__ = ["LoadScan", "LoadScanD", "LoadScanDict", "LoadScand"]


class LoadScan(Transform):
    """Load one scan, a DICOM folder or a file, to a float32 :py:class:`monai.data.MetaTensor` (1, X, Y, Z).

    It differs from :py:class:`monai.transforms.LoadImage` in what it refuses, see
    :py:class:`monai_mil_ext.data.ScanReader`, and in what it keeps: affine (RAS mm), spacing and shape, but no DICOM
    tag and no path.

    Args:
        series: UID, description or number of the series to take from a DICOM folder that has several.

    Raises:
        FileNotFoundError: when there is no such scan.
        ValueError: when it is not one 3D scalar scan of finite voxels.
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, series: str | None = None) -> None:
        self.series = series

    def __call__(self, path: str | os.PathLike[str], series: str | None = None) -> MetaTensor:
        """Load the scan at ``path``; ``series`` goes before that of the constructor."""
        # given at run time, because LoadImage turns to other readers when one of its constructor raises
        image: MetaTensor = _load_image()(path, reader=ScanReader(series or self.series))
        wrong = int((~torch.isfinite(image)).sum())
        if wrong:
            raise ValueError(f"`image` must have finite voxels, got {wrong} that are NaN or infinite.")
        image.meta.pop("filename_or_obj", None)
        return image


@cache
def _load_image() -> LoadImage:
    return LoadImage(image_only=True, ensure_channel_first=True)


class LoadScand(MapTransform):
    """Dictionary form of :py:class:`LoadScan`.

    Args:
        keys: items that hold the path of a scan, or of a mask with a scan's geometry.
        series: see :py:class:`LoadScan`; an item's own ``series`` goes before it.
        allow_missing_keys: whether to pass over a key that is not there.
    """

    backend = LoadScan.backend

    def __init__(self, keys: KeysCollection, series: str | None = None, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.load = LoadScan(series)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load the scan of every key."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.load(d[key], d.get(BagKeys.SERIES))
        return d


LoadScanD = LoadScanDict = LoadScand
