"""Transforms that load all bags of a patient as one bag."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.utils.enums import TransformBackends
from torch import Tensor

from .load_bag import LoadBag

__all__ = ["LoadPatientBag", "LoadPatientBagD", "LoadPatientBagDict", "LoadPatientBagd"]

SLIDE_INDEX = "slide_index"


class LoadPatientBag(Transform):
    """Load several feature files as one bag, the instances of all files concatenated.

    Coordinates of different slides have different origins, so ``slide_index`` (n,) stores the index of the file of each
    instance.

    Args:
        dtype: see :py:class:`LoadBag`.

    Raises:
        FileNotFoundError: see :py:class:`LoadBag`.
        ValueError: see :py:class:`LoadBag`; also if the list is empty or the files are inconsistent.
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, dtype: torch.dtype | None = torch.float32) -> None:
        self.load = LoadBag(dtype)

    def __call__(
        self, paths: Sequence[str | os.PathLike[str]], keys: Sequence[str] = (), allow_missing_keys: bool = False
    ) -> dict[str, Tensor]:
        """Load ``features`` (n, F), ``slide_index`` (n,) and ``keys``, arrays (n, ...) of the instances."""
        if isinstance(paths, (str, os.PathLike)) or not len(paths):
            raise ValueError(f"`image` must be a list of paths of bag files, got {paths!r}.")
        bags = [self.load(path, keys=keys, allow_missing_keys=allow_missing_keys) for path in paths]
        sizes = torch.tensor([len(bag["features"]) for bag in bags])
        merged = {key: _merged(key, bags, sizes.tolist()) for key in bags[0]}
        merged[SLIDE_INDEX] = torch.arange(len(bags)).repeat_interleave(sizes)
        return merged


class LoadPatientBagd(MapTransform):
    """Dictionary form of :py:class:`LoadPatientBag`, which replaces the list of paths by the features.

    Args:
        keys: first the item with the paths, which receives the features; then further per-instance arrays of the
            files, which are stored under their own names. ``slide_index`` is always stored.
        dtype: see :py:class:`LoadBag`.
        allow_missing_keys: whether to skip keys that the item or all files lack.
    """

    backend = LoadPatientBag.backend

    def __init__(
        self, keys: KeysCollection, dtype: torch.dtype | None = torch.float32, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.load = LoadPatientBag(dtype)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load the bags of a patient."""
        d = dict(data)
        image, *others = self.keys
        if image not in d:
            if self.allow_missing_keys:
                return d
            raise KeyError(
                f"`{image!s}` must be a list of paths of bag files, got no such key in {sorted(map(str, d))}."
            )
        bag = self.load(d[image], [str(key) for key in others], self.allow_missing_keys)
        d[image] = bag.pop("features")
        d.update(bag)
        return d


def _merged(key: str, bags: Sequence[Mapping[str, Any]], sizes: Sequence[int]) -> Tensor:
    values = [bag.get(key) for bag in bags]
    fits = all(isinstance(v, Tensor) and v.ndim and len(v) == n for v, n in zip(values, sizes, strict=True))
    kinds = {(tuple(v.shape[1:]), v.dtype) for v in values if isinstance(v, Tensor)}
    if not fits or len(kinds) > 1:
        raise ValueError(
            f"`{key}` must have a row of one shape and dtype for every instance of every bag, got {kinds}."
        )
    return torch.cat(values)  # type: ignore[arg-type]


LoadPatientBagD = LoadPatientBagDict = LoadPatientBagd
