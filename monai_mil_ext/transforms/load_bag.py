"""Loading bags of features and their labels."""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.utils.enums import TransformBackends
from torch import Tensor

from monai_mil_ext.data import read_bag
from monai_mil_ext.utils import check_positive

__all__ = [
    "LoadBag",
    "LoadBagD",
    "LoadBagDict",
    "LoadBagLabel",
    "LoadBagLabelD",
    "LoadBagLabelDict",
    "LoadBagLabeld",
    "LoadBagd",
]


class LoadBag(Transform):
    """Load rows ``[start, stop)`` of a feature file, and only those; see :py:func:`monai_mil_ext.data.write_bag`.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file can't be read, lacks a key, or the rows are none or hold features that are not finite.
    """

    backend = [TransformBackends.TORCH]

    def __call__(
        self,
        path: str | os.PathLike[str],
        start: int | None = None,
        stop: int | None = None,
        keys: Sequence[str] = (),
        allow_missing_keys: bool = False,
    ) -> dict[str, Tensor]:
        """Load ``features`` (n, F) float32 and ``keys``: arrays (n, ...) of the instances, or attributes of the bag."""
        name = Path(path).name
        bag = read_bag(path, ["features", *keys], start, stop, allow_missing_keys)
        bag["features"] = bag["features"].float()
        if not len(bag["features"]):
            raise ValueError(f"`image` must hold an instance, got none in rows {start} to {stop} of {name!r}.")
        wrong = int((~bag["features"].isfinite()).sum())
        if wrong:
            raise ValueError(f"`image` must hold finite features, got {wrong} NaN or infinite values in {name!r}.")
        return bag


class LoadBagd(MapTransform):
    """Dictionary form of :py:class:`LoadBag`: the features take the place of their file's path.

    An item may say which rows it wants: ``{"image": path, "start": 3, "stop": 11}``.

    Args:
        keys: the first is the item that holds the path and gets the features; the others are read from the same file
            and put beside it under their own names.
        allow_missing_keys: whether to pass over a key that the item or the file doesn't have.
    """

    backend = LoadBag.backend

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.load = LoadBag()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load the bag."""
        d = dict(data)
        image, *others = self.keys
        if image not in d:
            if self.allow_missing_keys:
                return d
            raise KeyError(f"`{image!s}` must be the path of a bag file, got no such key in {sorted(map(str, d))}.")
        bag = self.load(d[image], d.get("start"), d.get("stop"), others, self.allow_missing_keys)
        d[image] = bag.pop("features")
        d.update(bag)
        return d


class LoadBagLabel(Transform):
    """Read the label of a bag: a class number, or the path of a JSON file ``{"label": class number}``.

    Args:
        num_classes: labels are 0 to ``num_classes - 1``.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when there is no label or it is none of the classes.

    Example:
        >>> LoadBagLabel(2)(1)
        tensor(1)
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, num_classes: int) -> None:
        check_positive(num_classes=num_classes)
        self.num_classes = num_classes

    def __call__(self, label: int | np.ndarray[Any, Any] | Tensor | str | os.PathLike[str]) -> Tensor:
        """Read ``label`` to an int64 tensor ()."""
        value = _from_json(Path(label)) if isinstance(label, (str, os.PathLike)) else label
        number = np.asarray(value)
        if number.dtype.kind not in "iu" or number.size != 1 or not 0 <= int(number.item()) < self.num_classes:
            raise ValueError(f"`label` must be a class number from 0 to {self.num_classes - 1}, got {value!r}.")
        return torch.tensor(int(number.item()), dtype=torch.int64)


def _from_json(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"`label` must be a number or a JSON file that exists, got {path.name!r}.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))["label"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f'`label` must be a JSON file {{"label": number}}, got {path.name!r}.') from None


class LoadBagLabeld(MapTransform):
    """Dictionary form of :py:class:`LoadBagLabel`.

    Args:
        keys: labels, or paths of them.
        num_classes: see :py:class:`LoadBagLabel`.
        allow_missing_keys: whether to pass over a key that is not there.
    """

    backend = LoadBagLabel.backend

    def __init__(self, keys: KeysCollection, num_classes: int, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.load = LoadBagLabel(num_classes)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Read the label of every key."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.load(d[key])
        return d


LoadBagD = LoadBagDict = LoadBagd
LoadBagLabelD = LoadBagLabelDict = LoadBagLabeld
