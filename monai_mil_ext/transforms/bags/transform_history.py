"""Transform that keeps the transform history of a scan for inversion after encoding and batching."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from copy import deepcopy
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils.enums import TransformBackends

__all__ = ["KeepTransformHistoryD", "KeepTransformHistoryDict", "KeepTransformHistoryd"]


class KeepTransformHistoryd(MapTransform):
    """Copy the transform history of a :py:class:`monai.data.MetaTensor` to the item ``<key>_transforms``.

    :py:class:`monai.transforms.Invertd` reads the history from there once the item itself has become a plain tensor,
    as it does in an encoder and in :py:class:`monai_mil_ext.data.BagCollate`. Place this transform after the last
    invertible one. All bags of a batch must have been made by the same transforms.

    Args:
        keys: items with a transform history.
        allow_missing_keys: whether to skip missing keys.

    Raises:
        ValueError: if an item is not a MetaTensor.

    Example:
        >>> import torch
        >>> from monai_mil_ext.transforms import SliceBagd
        >>> item = KeepTransformHistoryd("image")(SliceBagd("image")({"image": MetaTensor(torch.rand(1, 5, 4, 3))}))
        >>> [step["class"] for step in item["image_transforms"]]
        ['SliceBag']
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Copy the history of the item of each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            if not isinstance(d[key], MetaTensor):
                raise ValueError(f"`{key!s}` must be a MetaTensor, which has a history, got {type(d[key]).__name__}.")
            d[InvertibleTransform.trace_key(key)] = deepcopy(d[key].applied_operations)
        return d


KeepTransformHistoryD = KeepTransformHistoryDict = KeepTransformHistoryd
