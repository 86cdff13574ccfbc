"""Transforms that load the mask of a scan from DICOM objects or volumes."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils.enums import TransformBackends

from monai_mil_ext.data import find_annotation, read_annotation_mask
from monai_mil_ext.utils import BagKeys, InputError

from .load_scan import FILL_LOWEST, LoadScan

__all__ = ["LoadMask", "LoadMaskD", "LoadMaskDict", "LoadMaskd"]


class LoadMask(Transform):
    """Load the mask (1, X, Y, Z) of a scan from an RTSTRUCT, a DICOM SEG, or a volume in any format of scans.

    A DICOM object must belong to the series of the scan: its frame of reference, the referenced series and the slices
    of its contours are checked, and its mask has the voxels of the series. A folder may contain one RTSTRUCT or SEG,
    for example next to the images. A volume is loaded unchanged; :py:class:`monai_mil_ext.transforms.SliceBagd` checks
    that it has the geometry of the scan.

    Args:
        names: names of the regions (segments) of a DICOM object, whose union is returned; ``None`` requires that there
            is only one.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if there is no region of that name, the object doesn't belong to the scan, or names are given for
            a volume.

    Example:
        >>> LoadMask()("no_such_mask.nii.gz", "no_such_scan")
        Traceback (most recent call last):
        ...
        FileNotFoundError: `image` must be a scan that exists, got the path of no file or folder.
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, names: Sequence[str] | None = None) -> None:
        self.names = names

    def __call__(
        self, path: str | os.PathLike[str], scan: str | os.PathLike[str], series: str | None = None
    ) -> MetaTensor:
        """Load the mask at ``path`` of the series ``series`` of the scan at ``scan``."""
        annotation = find_annotation(path)
        if annotation is not None:
            return read_annotation_mask(annotation, scan, self.names, series)
        try:
            mask = LoadScan()(path)
        except InputError as error:
            error.option = error.option.replace(FILL_LOWEST, "")  # that fills the scan
            raise
        if self.names is not None:
            raise ValueError(f"`names` must be None for a mask that is a volume, got {list(self.names)}.")
        return mask


class LoadMaskd(MapTransform):
    """Dictionary form of :py:class:`LoadMask`, to be placed before the transform that loads the scan.

    Followed by :py:class:`monai_mil_ext.transforms.SliceBagd` and
    :py:class:`monai_mil_ext.transforms.MaskToInstanceLabeld`, it yields the label of every slice.

    Args:
        keys: items with the path of a mask.
        image_key: item with the path of the scan; an item ``series`` selects a series of its folder.
        names: see :py:class:`LoadMask`; an item ``names`` takes precedence.
        allow_missing_keys: whether to skip missing keys.
    """

    backend = LoadMask.backend

    def __init__(
        self,
        keys: KeysCollection = "reference",
        image_key: str = "image",
        names: Sequence[str] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key
        self.names = names

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load the mask of each key."""
        d = dict(data)
        load = LoadMask(d.pop("names", None) or self.names)
        for key in self.key_iterator(d):
            d[key] = load(d[key], d[self.image_key], d.get(BagKeys.SERIES))
        return d


LoadMaskD = LoadMaskDict = LoadMaskd
