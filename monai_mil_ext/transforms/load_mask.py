"""Loading what was marked in a scan, whatever it was written in."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils.enums import TransformBackends

from monai_mil_ext.data import find_marks, read_marks
from monai_mil_ext.utils import BagKeys

from .load_scan import LoadScan

__all__ = ["LoadMask", "LoadMaskD", "LoadMaskDict", "LoadMaskd"]


class LoadMask(Transform):
    """Load the mask (1, X, Y, Z) of a scan from an RTSTRUCT, a DICOM SEG, or a volume in any format of scans.

    A DICOM object must belong to the scan's series: its frame of reference, the series that it refers to and the
    slices that it is drawn on are checked, and its mask has the voxels of the series. A folder may hold one RTSTRUCT
    or SEG, beside the images for example. A volume comes as it is; that its geometry is the scan's is checked where
    both are cut, in :py:class:`monai_mil_ext.transforms.SliceBagd`.

    Args:
        names: of the regions (segments) of a DICOM object, whose union is taken; ``None`` takes the only one.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when a name is not there, or the object doesn't belong to the scan. A volume has no names.

    Example:
        >>> LoadMask()("no_such_mask.nii.gz", "no_such_scan")
        Traceback (most recent call last):
        ...
        FileNotFoundError: `image` must be a scan that exists, got 'no_such_mask.nii.gz'.
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, names: Sequence[str] | None = None) -> None:
        self.names = names

    def __call__(
        self, path: str | os.PathLike[str], scan: str | os.PathLike[str], series: str | None = None
    ) -> MetaTensor:
        """Load the mask at ``path`` of the scan at ``scan``, and there of the series ``series``."""
        marks = find_marks(path)
        if marks is not None:
            return read_marks(marks, scan, self.names, series)
        mask = LoadScan()(path)
        if self.names is not None:
            raise ValueError(f"`names` must be None for a mask that is a volume, got {list(self.names)}.")
        return mask


class LoadMaskd(MapTransform):
    """Dictionary form of :py:class:`LoadMask`; it stands before the transform that loads the scan.

    With :py:class:`monai_mil_ext.transforms.SliceBagd` and :py:class:`monai_mil_ext.transforms.MaskToInstanceLabeld`
    behind it, it gives the label of every slice.

    Args:
        keys: items that hold the path of a mask.
        image_key: item that still holds the path of the scan; an item ``series`` chooses one in its folder.
        names: see :py:class:`LoadMask`; an item's own ``names`` goes before it.
        allow_missing_keys: whether to pass over a key that is not there.
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
        """Load the mask of every key."""
        d = dict(data)
        load = LoadMask(d.pop("names", None) or self.names)
        for key in self.key_iterator(d):
            d[key] = load(d[key], d[self.image_key], d.get(BagKeys.SERIES))
        return d


LoadMaskD = LoadMaskDict = LoadMaskd
