"""Transforms that load bags of features and their labels."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform, Transform
from monai.utils.enums import TransformBackends
from torch import Tensor

from monai_mil_ext.data import open_bag
from monai_mil_ext.data.bags.label_files import read_instance_labels
from monai_mil_ext.utils import BagKeys, EmptyBagError, check_local, check_positive, count_non_finite, load_json

from .instance_sampling import RandSampleInstances

__all__ = [
    "LoadBag",
    "LoadBagD",
    "LoadBagDict",
    "LoadBagLabel",
    "LoadBagLabelD",
    "LoadBagLabelDict",
    "LoadBagLabeld",
    "LoadBagd",
    "RandLoadBag",
    "RandLoadBagD",
    "RandLoadBagDict",
    "RandLoadBagd",
]


PLACES = (str(BagKeys.POSITION), str(BagKeys.COORDS))
LABELS = str(BagKeys.INSTANCE_LABEL)


class LoadBag(Transform):
    """Load a bag of features, or its rows ``[start, stop)``, from a file of any format of ``open_bag``.

    Args:
        dtype: dtype of the features; None keeps that of the file, for example float16.

    Raises:
        FileNotFoundError: if the file does not exist.
        EmptyBagError: (a ``ValueError``) if there are no rows.
        ValueError: if the file can't be read or lacks a key, or if features, positions or coordinates are not finite.
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, dtype: torch.dtype | None = torch.float32) -> None:
        self.dtype = dtype

    def __call__(
        self,
        path: str | os.PathLike[str],
        start: int | None = None,
        stop: int | None = None,
        keys: Sequence[str] = (),
        allow_missing_keys: bool = False,
        slide: str | None = None,
        labels: str | os.PathLike[str] | None = None,
    ) -> dict[str, Any]:
        """Load ``features`` (n, F) and ``keys``: arrays (n, ...) of the instances, or metadata of the bag.

        With ``labels``, ``instance_label`` (n,) is read from that file, and not from the bag.
        """
        with open_bag(path, slide) as bag:
            rows = bag.rows(start, stop)
            if not len(rows):
                part = "" if start is None and stop is None else f" in rows {start or 0} to {stop or 'the last'}"
                raise EmptyBagError(f"`image` must hold an instance, got none{part} of {bag.name!r}.")
            chosen = self.choose(rows)
            stored = [key for key in keys if labels is None or key != LABELS]
            loaded = bag.read(["features", *stored], chosen, allow_missing_keys)
            if labels is not None:
                loaded[LABELS] = _select_labels(labels, len(bag.rows(None, None)), chosen)
            features = loaded["features"]
            loaded["features"] = features if self.dtype is None else features.to(self.dtype)  # may overflow
            for key in ("features", *PLACES):
                _check_finite(key, loaded.get(key), bag.name)
        return loaded

    def choose(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the row numbers to load: all of ``rows`` (n,)."""
        return rows


def _select_labels(path: str | os.PathLike[str], num_instances: int, rows: np.ndarray[Any, Any]) -> Tensor:
    labels = read_instance_labels(path)
    if len(labels) != num_instances:
        raise ValueError(
            f"`{LABELS}` must have a label for each of {num_instances} instances, got {len(labels)} in "
            f"{Path(path).name!r}."
        )
    return labels[torch.as_tensor(rows)]


def _check_finite(key: str, values: Any, name: str) -> None:
    wrong = count_non_finite(values) if isinstance(values, Tensor) else ""
    if wrong and key == "features":
        raise ValueError(f"`image` must hold finite features, got {wrong} in {name!r}.")
    if wrong:
        raise ValueError(f"`{key}` must be finite, got {wrong} in {name!r}.")


class RandLoadBag(LoadBag, RandomizableTransform):
    """Load at most ``num_instances`` random rows of a bag, in their order and without reading the others.

    The rows are drawn as in :py:class:`RandSampleInstances`: with the same seed, both return the same bag.

    Args:
        num_instances: number of rows to load; smaller bags are loaded completely.
        stratified: see :py:class:`RandSampleInstances`.
        dtype: see :py:class:`LoadBag`.
        block_size: see :py:class:`RandSampleInstances`; blocks of 64 rows of 1,024 features in float16 are 128 KiB.

    Raises:
        FileNotFoundError: see :py:class:`LoadBag`.
        ValueError: see :py:class:`LoadBag`.
    """

    def __init__(
        self,
        num_instances: int,
        stratified: bool = False,
        dtype: torch.dtype | None = torch.float32,
        block_size: int = 1,
    ) -> None:
        LoadBag.__init__(self, dtype)
        RandomizableTransform.__init__(self)
        self.subset = RandSampleInstances(num_instances, stratified, block_size=block_size)
        self._randomize = True

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandLoadBag:
        """Set the random state of this transform and of the transform that draws the instances."""
        super().set_random_state(seed, state)
        self.subset.set_random_state(seed, state)
        return self

    def randomize(self, data: int) -> None:
        """Draw the rows of a bag of ``data`` instances."""
        self.subset.randomize(data)

    def choose(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the row numbers to load: those of ``rows`` (n,) that were drawn."""
        if self._randomize:
            self.randomize(len(rows))
        return np.asarray(self.subset(rows, randomize=False))

    def __call__(self, *args: Any, randomize: bool = True, **kwargs: Any) -> dict[str, Any]:
        """Load a bag as in :py:class:`LoadBag`; ``randomize=False`` repeats the last draw."""
        self._randomize = randomize
        return super().__call__(*args, **kwargs)


class _LoadBagd(MapTransform):
    """Base of the dictionary forms of :py:class:`LoadBag` and :py:class:`RandLoadBag`."""

    backend = LoadBag.backend

    def __init__(self, keys: KeysCollection, load: LoadBag, allow_missing_keys: bool) -> None:
        super().__init__(keys, allow_missing_keys)
        self.load = load

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load the bag."""
        d = dict(data)
        image, *others = self.keys
        if image not in d:
            if self.allow_missing_keys:
                return d
            raise KeyError(f"`{image!s}` must be the path of a bag file, got no such key in {sorted(map(str, d))}.")
        labels = d.get(LABELS) if LABELS in others else None
        labels = labels if isinstance(labels, (str, os.PathLike)) else None
        rows = d.get("start"), d.get("stop")
        bag = self.load(d[image], *rows, others, self.allow_missing_keys, d.get("slide"), labels)
        d[image] = bag.pop("features")
        d.update(bag)
        return d


class LoadBagd(_LoadBagd):
    """Dictionary form of :py:class:`LoadBag`, which replaces the path of a file by its features.

    An item can select rows, ``{"image": path, "start": 3, "stop": 11}``, and the ``slide`` of a file with several.
    Where ``instance_label`` of the item is a path, and one of the keys, the labels (n,) are read from that file.

    Args:
        keys: first the item with the path, which receives the features; then further contents of the file
            (``coords``, ``tile_size``, ``unit``, arrays), which are stored under their own names.
        dtype: see :py:class:`LoadBag`.
        allow_missing_keys: whether to skip keys that the item or the file lacks.
    """

    def __init__(
        self, keys: KeysCollection, dtype: torch.dtype | None = torch.float32, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, LoadBag(dtype), allow_missing_keys)


class RandLoadBagd(_LoadBagd, RandomizableTransform):
    """Dictionary form of :py:class:`RandLoadBag`, with one draw for all keys; for training.

    Args:
        keys: see :py:class:`LoadBagd`.
        num_instances: see :py:class:`RandLoadBag`.
        stratified: see :py:class:`RandLoadBag`.
        dtype: see :py:class:`LoadBag`.
        block_size: see :py:class:`RandLoadBag`.
        allow_missing_keys: see :py:class:`LoadBagd`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        num_instances: int,
        stratified: bool = False,
        dtype: torch.dtype | None = torch.float32,
        block_size: int = 1,
        allow_missing_keys: bool = False,
    ) -> None:
        _LoadBagd.__init__(self, keys, RandLoadBag(num_instances, stratified, dtype, block_size), allow_missing_keys)
        RandomizableTransform.__init__(self)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandLoadBagd:
        """Set the random state of this transform and of the transform that draws the instances."""
        super().set_random_state(seed, state)
        self.load.set_random_state(seed, state)
        return self


class LoadBagLabel(Transform):
    """Load the label of a bag from a class number or from a JSON file ``{"label": class number}``.

    Args:
        num_classes: number of classes; labels are 0 to ``num_classes - 1``.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if there is no label, or it is not one of the classes.

    Example:
        >>> LoadBagLabel(2)(1)
        tensor(1)
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, num_classes: int) -> None:
        check_positive(num_classes=num_classes)
        self.num_classes = num_classes

    def __call__(self, label: int | np.ndarray[Any, Any] | Tensor | str | os.PathLike[str]) -> Tensor:
        """Return the label as an int64 tensor ()."""
        value = _from_json(Path(label)) if isinstance(label, (str, os.PathLike)) else label
        number = np.asarray(value)
        if number.dtype.kind not in "iu" or number.size != 1 or not 0 <= int(number.item()) < self.num_classes:
            raise ValueError(f"`label` must be a class number from 0 to {self.num_classes - 1}, got {value!r}.")
        return torch.tensor(int(number.item()), dtype=torch.int64)


def _from_json(path: Path) -> Any:
    check_local(label=path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"`label` must be a number or a JSON file that exists, got {path.name!r}.")
    try:
        return load_json(path)["label"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f'`label` must be a JSON file {{"label": number}}, got {path.name!r}.') from None


class LoadBagLabeld(MapTransform):
    """Dictionary form of :py:class:`LoadBagLabel`.

    Args:
        keys: labels or paths of their files.
        num_classes: see :py:class:`LoadBagLabel`.
        allow_missing_keys: whether to skip missing keys.
    """

    backend = LoadBagLabel.backend

    def __init__(self, keys: KeysCollection, num_classes: int, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.load = LoadBagLabel(num_classes)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load the label of each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.load(d[key])
        return d


LoadBagD = LoadBagDict = LoadBagd
RandLoadBagD = RandLoadBagDict = RandLoadBagd
LoadBagLabelD = LoadBagLabelDict = LoadBagLabeld
