"""Keeping what leads back to a scan when its bag becomes features and a batch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from copy import deepcopy
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils.enums import TransformBackends

__all__ = ["CopyTraceD", "CopyTraceDict", "CopyTraced"]


class CopyTraced(MapTransform):
    """Copy the history of a :py:class:`monai.data.MetaTensor` beside it, to ``<key>_transforms``.

    There :py:class:`monai.transforms.Invertd` looks for it when the item itself is a plain tensor, as an encoder and
    :py:class:`monai_mil_ext.data.BagCollate` make of it. It goes behind the last invertible transform. The bags of a
    batch must have come by the same transforms.

    Args:
        keys: items with a history.
        allow_missing_keys: whether to pass over a key that is not there.

    Raises:
        ValueError: when an item is no MetaTensor.

    Example:
        >>> import torch
        >>> from monai_mil_ext.transforms import SliceBagd
        >>> item = CopyTraced("image")(SliceBagd("image")({"image": MetaTensor(torch.rand(1, 5, 4, 3))}))
        >>> [step["class"] for step in item["image_transforms"]]
        ['SliceBag']
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Copy the history of every key."""
        d = dict(data)
        for key in self.key_iterator(d):
            if not isinstance(d[key], MetaTensor):
                raise ValueError(f"`{key!s}` must be a MetaTensor, which has a history, got {type(d[key]).__name__}.")
            d[InvertibleTransform.trace_key(key)] = deepcopy(d[key].applied_operations)
        return d


CopyTraceD = CopyTraceDict = CopyTraced
