"""Transforms that load all bags of a patient as one bag."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.utils.enums import TransformBackends
from torch import Tensor

from monai_mil_ext.utils import BagKeys, EmptyBagError
from monai_mil_ext.utils.exceptions import case_error

from .load_bag import LoadBag

__all__ = [
    "LoadPatientBag",
    "LoadPatientBagD",
    "LoadPatientBagDict",
    "LoadPatientBagd",
    "PatientBagD",
    "PatientBagDict",
    "PatientBagd",
]

SLIDE_INDEX, SLIDE_COUNT = "slide_index", "slide_count"
LABELS = str(BagKeys.INSTANCE_LABEL)
PER_SLIDE = (str(BagKeys.SLIDE_MPP), "magnification", LABELS)  # lists of values, one for each path


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


class PatientBagd(MapTransform):
    """Load all slides of a patient by a transform of one slide, and concatenate their instances.

    An item with one path, or with a list of one, is passed to the transform as it is. Of several slides the features
    are kept, with ``slide_index`` (n,), the index of the slide of each instance, ``slide_count``, ``source_check``, and
    ``notes``: the number of slides, and the notes on each. ``container`` is kept if all have the same, and
    ``instance_label`` (n,) if all have it. Tiles of different slides have no common coordinates. A slide without
    instances is passed over if another has some.

    Args:
        keys: path of the slide, or list of the paths of a patient, which is replaced by the features; a single key.
        transform: transform from the item of one slide to its bag.
        allow_missing_keys: whether to skip missing keys.

    Raises:
        EmptyBagError: when no slide has an instance.
        ValueError: when the list is empty, or slides differ in the width of their features.

    Example:
        >>> from monai_mil_ext.data import write_bag
        >>> from monai_mil_ext.transforms import LoadBagd
        >>> for name, n in (("a.h5", 2), ("b.h5", 1)):
        ...     write_bag(name, {"features": torch.ones(n, 4)})
        >>> bag = PatientBagd("image", LoadBagd("image"))({"image": ["a.h5", "b.h5"]})
        >>> tuple(bag["image"].shape), bag["slide_index"].tolist()
        ((3, 4), [0, 0, 1])
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        keys: KeysCollection,
        transform: Callable[[dict[Hashable, Any]], Mapping[Hashable, Any]],
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) > 1:
            raise ValueError(f"`keys` must name one path of an item, got {self.keys}.")
        self.transform = transform

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load the bags of the item."""
        d = dict(data)
        for key in self.key_iterator(d):
            if isinstance(d[key], (list, tuple)):
                return self._load(d, key)
        return dict(self.transform(d))

    def _load(self, d: dict[Hashable, Any], key: Hashable) -> dict[Hashable, Any]:
        count = len(d[key])
        if not count:
            raise ValueError(f"`{key!s}` must be a list of paths of slides, got an empty one.")
        bags = [self._load_slide(_slide_item(d, key, i), i, count) for i in range(count)]
        if count == 1:
            return bags[0]
        sizes = torch.tensor([len(bag.get(key, ())) for bag in bags])
        if not sizes.any():
            raise EmptyBagError(f"`{key!s}` must have an instance in one of {count} slides, got none.")
        features = [bag[key] for bag in bags if key in bag]
        widths = sorted({tuple(values.shape[1:]) for values in features})
        if len(widths) > 1:
            raise ValueError(f"features must have one width in all slides of a patient, got {widths}.")
        kept = {name: value for name, value in d.items() if name not in PER_SLIDE}
        kept |= {key: torch.cat(features), SLIDE_INDEX: torch.arange(count).repeat_interleave(sizes)}
        kept[SLIDE_COUNT] = count
        checks = dict.fromkeys(bag[BagKeys.SOURCE_CHECK] for bag in bags if BagKeys.SOURCE_CHECK in bag)
        kept |= {str(BagKeys.SOURCE_CHECK): "; ".join(checks)} if checks else {}
        empty = int((sizes == 0).sum())
        note = f"{count} slides in one bag" + (f", {empty} of them without instances" if empty else "")
        kept |= _labels_of_slides([bag for bag in bags if key in bag])
        return {**kept, **_same_container(bags), str(BagKeys.NOTES): "; ".join([note, *_notes_of_slides(bags)])}

    def _load_slide(self, item: dict[Hashable, Any], index: int, count: int) -> dict[Hashable, Any]:
        """Return the bag of a slide; without instances, an empty dictionary if there are other slides."""
        try:
            return dict(self.transform(item))
        except Exception as error:
            cause = case_error(error)  # which a Compose has wrapped
            if count > 1 and isinstance(cause, EmptyBagError):
                return {}
            if count > 1 and isinstance(cause, ValueError):
                cause.args = (f"slide {index + 1} of {count}: {cause}",)
            raise


def _labels_of_slides(bags: Sequence[Mapping[Hashable, Any]]) -> dict[Hashable, Any]:
    labels = [bag[LABELS].flatten() for bag in bags if isinstance(bag.get(LABELS), Tensor)]
    return {LABELS: torch.cat(labels)} if len(labels) == len(bags) else {}


def _same_container(bags: Sequence[Mapping[Hashable, Any]]) -> dict[Hashable, Any]:
    containers = {bag[BagKeys.CONTAINER] for bag in bags if bag.get(BagKeys.CONTAINER)}
    return {str(BagKeys.CONTAINER): containers.pop()} if len(containers) == 1 else {}


def _notes_of_slides(bags: Sequence[Mapping[Hashable, Any]]) -> list[str]:
    notes = [(i, bag.get(BagKeys.NOTES) or "") for i, bag in enumerate(bags, 1)]
    return [f"slide {i}: {note}" for i, text in notes for note in text.split("; ") if note]


def _slide_item(d: Mapping[Hashable, Any], key: Hashable, index: int) -> dict[Hashable, Any]:
    """Return the item of one slide of a patient."""
    item = {**d, key: d[key][index]}
    for name in PER_SLIDE:
        if isinstance(item.get(name), (list, tuple)):
            item[name] = item[name][index]
            if item[name] is None:
                del item[name]
    return item


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
PatientBagD = PatientBagDict = PatientBagd
