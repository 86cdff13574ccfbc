"""Cache of the features of scans or slides, in bag files."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.config import KeysCollection
from monai.transforms import Compose, RandomizableTrait
from monai.utils import ensure_tuple

from monai_mil_ext.data.bags.bag_file import read_attributes, write_bag
from monai_mil_ext.utils import (
    BagKeys,
    EmptyBagError,
    check_case_ids,
    check_choice,
    check_name,
    optional_dependency,
    remove_stale_files,
)
from monai_mil_ext.utils.bag_items import check_input
from monai_mil_ext.utils.exceptions import root_cause
from monai_mil_ext.utils.paths import result_path
from monai_mil_ext.utils.remote import is_remote

from .bad_cases import BadCasesError, is_system_error, reason_of
from .fingerprints import fingerprint as fingerprint_of
from .identities import item_identity

__all__ = ["EncodingStats", "FeatureCache"]

logger = logging.getLogger(__name__)
tqdm = optional_dependency("", "tqdm", "tqdm")
SLIDE_MPP = "slide_mpp"  # key of items that affects the features
PER_BAG = {str(BagKeys.AFFINE), str(BagKeys.SPATIAL_SHAPE), "grid_shape", "tile_size", "unit", "mpp", SLIDE_MPP}
PER_BAG |= {str(BagKeys.SLICE_POSITION), str(BagKeys.SLICE_THICKNESS)}
PER_BAG |= {"modality", "lowest", "highest", "spacing"}  # what a scan states of itself
EMPTY = {"status": "empty"}
NOTES = str(BagKeys.NOTES)  # sentences: what was left out of a scan or slide
Describe = Callable[[Mapping[str, Any]], Mapping[str, Mapping[str, Any]]]


class EncodingStats(NamedTuple):
    """Number of encoded instances of a scan, and the time that it took."""

    instances: int
    encode_seconds: float | None  # in which the encoder was busy, if known


class FeatureCache:
    """Cache of features: runs ``transform`` on every scan without a feature file.

    Files are ``<cache_dir>/<fingerprint[:12]>/<case_id>.h5``, so that features of different encoders, weights or
    windows are in different folders. A file is computed again if it is damaged, has another fingerprint, or does not
    belong to the present input: to the same scan and reference by :py:func:`item_identity`, with the same values of
    ``keys`` and the same ``attributes``. Files are written atomically: an interrupted run can be continued, and several
    processes may fill one folder, where files that another process has finished in the meantime are not computed
    again. A file contains features, the requested keys, the case ID, and hashes of configuration and input, but no path
    and no DICOM tag. If a changed scan fails, the features of its former version are removed.

    Args:
        cache_dir: folder of all features, or its address in an object store, where a file is there whole or not at all.
        transform: deterministic transform to an item whose first key holds the features (N, F).
        keys: keys to save: first the features, then arrays (N, ...) of the instances, and of the bag ``affine``,
            ``spatial_shape``, ``grid_shape``, ``tile_size``, ``unit``, ``mpp`` and ``slide_mpp``. Keys that a scan
            lacks, such as a reference, are omitted. Of the bag are also ``modality``, ``lowest``, ``highest`` and
            ``spacing`` of a scan. ``notes``, what was left out of a scan or slide, are always saved.
        fingerprint: fingerprint of the configuration; ``None`` takes that of ``transform`` and ``keys``.
        progress: whether to show a progress bar.
        attributes: further attributes of every file, such as the name of the ``encoder``.
        describe: function from the item with features to attributes of single arrays, such as
            :py:meth:`monai_mil_ext.data.TileGrid.describe` for those of TRIDENT. ``name`` (the case ID) and
            ``savetodir`` (the name of the folder) are added.
        on_empty: result for a scan without instances, such as a slide without tissue: ``"error"``, or with ``"write"``
            a file of features (0, 0) with ``status`` ``"empty"``, which readers treat as an empty bag.

    Raises:
        ValueError: when ``transform`` is random, or the case ID of an item is missing, invalid or repeated.
    """

    def __init__(
        self,
        cache_dir: str | os.PathLike[str],
        transform: Callable[[Any], Any],
        keys: KeysCollection = "image",
        fingerprint: str | None = None,
        progress: bool = True,
        attributes: Mapping[str, Any] | None = None,
        describe: Describe | None = None,
        on_empty: str = "error",
    ) -> None:
        check_choice("on_empty", on_empty, ["error", "write"])
        random = [type(t).__name__ for t in _steps(transform) if isinstance(t, RandomizableTrait)]
        if random:
            raise ValueError(f"`transform` must be deterministic to be computed once, got {random}.")
        self.transform = transform
        self.keys = tuple(str(key) for key in ensure_tuple(keys))
        self.fingerprint = fingerprint or fingerprint_of(transform, self.keys)
        self.folder = result_path(cache_dir, "cache_dir") / self.fingerprint[:12]
        self.progress = progress
        self.attributes = dict(attributes or {})
        self.describe = describe
        self.on_empty = on_empty
        self._inputs: dict[str, dict[str, Any]] = {}

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Compute missing features, and return ``items`` with the path of the feature file instead of the scan.

        Raises:
            BadCasesError: (a ``ValueError``) when cases give no features. It is raised after all others are computed,
                and lists every such case.
        """
        missing, reasons = self.missing(items), dict[str, str]()
        for item in tqdm(missing, desc="features of cases", disable=not (self.progress and missing)):
            if not self.is_done(item):
                self._try(item, reasons)
        if reasons:
            raise BadCasesError(reasons)
        self._inputs |= {str(self.file(item)): dict(item) for item in items}
        return [{**item, self.keys[0]: str(self.file(item))} for item in items]

    def for_cohort(self, name: str) -> FeatureCache:
        """Return this cache with a folder of its own, for a second cohort whose case IDs may be those of the first.

        Example:
            >>> cache = FeatureCache("features", lambda item: item)
            >>> cache.for_cohort("hospital_b").folder.relative_to(cache.folder)
            PosixPath('hospital_b')
        """
        check_name(name=name)
        other = copy.copy(self)
        other.folder = self.folder / name
        return other

    def input_of(self, path: str | os.PathLike[str]) -> dict[str, Any] | None:
        """Return the item of the scan or slide whose features are in a file, if this object was called with it.

        It knows the inputs of caches :py:meth:`for_cohort`, too.
        """
        return self._inputs.get(str(path))

    def _try(self, item: Mapping[str, Any], reasons: dict[str, str]) -> None:
        """Compute the features of ``item``, or add the reason why there are none to ``reasons``."""
        try:
            self.make(item)
        except Exception as error:
            if is_system_error(root_cause(error)):
                raise
            reasons[str(item[BagKeys.CASE_ID])] = reason_of(error, item)

    def missing(self, items: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return the ``items`` without features, and remove temporary files of interrupted writers."""
        check_case_ids(items)
        remove_stale_files(self.folder)
        missing = self._open_items(items)
        former = sum("input" not in (self._attributes(item) or {"input": None}) for item in missing)
        if former:
            logger.warning(f"features of {former} cases do not state their input and are computed again")
        return missing

    def _open_items(self, items: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return the ``items`` that are not done; an object store is asked once which files it has."""
        if not is_remote(self.folder):
            return [item for item in items if not self.is_done(item)]
        there = {path.name for path in self.folder.iterdir()} if self.folder.is_dir() else set()
        return [item for item in items if self.file(item).name not in there or not self.is_done(item)]

    def file(self, item: Mapping[str, Any]) -> Path:
        """Return the path of the feature file of ``item``, which need not exist."""
        return self.folder / f"{item[BagKeys.CASE_ID]}.h5"

    def is_done(self, item: Mapping[str, Any]) -> bool:
        """Return whether ``item`` has a feature file of this configuration and of its present input."""
        attributes = self._attributes(item)
        return attributes is not None and "input" in attributes and attributes["input"] == self._input(item)

    def is_empty(self, item: Mapping[str, Any]) -> bool:
        """Return whether ``item`` has a feature file of this configuration that marks it as empty."""
        return EMPTY.items() <= (self._attributes(item) or {}).items()

    def make(self, item: Mapping[str, Any]) -> EncodingStats:
        """Compute and write the features of ``item``.

        Raises:
            RuntimeError: when ``transform`` fails; the message names case and cause.
        """
        present = self._input(item)  # before reading, so that a change while encoding is noticed later
        try:
            check_input(item)
            try:
                result = self.transform(dict(item))
            except Exception as error:
                if self.on_empty == "error" or not isinstance(root_cause(error), EmptyBagError):
                    raise
                return self._write_empty(item, present, getattr(root_cause(error), "facts", {}))
            return self._write(item, result, present)
        except Exception as error:
            if present is not None and not self.is_done(item):
                self.file(item).unlink(missing_ok=True)
            reason = reason_of(error, item)
            raise RuntimeError(f"case {item[BagKeys.CASE_ID]!r} gave no features: {reason}") from error

    def notes(self, item: Mapping[str, Any]) -> str:
        """Return the notes in the feature file of ``item``: what was left out; empty if there are none."""
        return str((self._attributes(item) or {}).get(NOTES, ""))

    def _attributes(self, item: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the attributes of the feature file of ``item``, or None if there is none of this configuration."""
        try:
            attributes = read_attributes(self.file(item))
        except (FileNotFoundError, ValueError):
            return None
        return attributes if attributes.get("fingerprint") == self.fingerprint else None

    def _input(self, item: Mapping[str, Any]) -> str | None:
        """Return the hash of everything that a feature file depends on except the configuration; None if unknown."""
        identity = item_identity(item, self.keys)
        return None if identity is None else fingerprint_of(identity, self.attributes)

    def _write(self, item: Mapping[str, Any], result: Mapping[str, Any], present: str | None) -> EncodingStats:
        features, *others = self.keys
        values = {key: result[key] for key in others if result.get(key) is not None}
        arrays = {"features": result[features], **{k: v for k, v in values.items() if k not in PER_BAG}}
        attributes = {k: v for k, v in values.items() if k in PER_BAG - {SLIDE_MPP}} | _notes(result)
        described = {} if self.describe is None else self.describe(result)
        about = self._file_attributes(item, attributes, present)
        write_bag(self.file(item), arrays, about, self._array_attributes(item, described))
        return EncodingStats(len(result[features]), result.get("encode_seconds"))

    def _write_empty(self, item: Mapping[str, Any], present: str | None, facts: Mapping[str, Any]) -> EncodingStats:
        arrays = {"features": np.empty((0, 0), dtype=np.float32)}
        if "coords" in self.keys:
            arrays["coords"] = np.empty((0, 2), dtype=np.int64)
        about = self._file_attributes(item, EMPTY | _notes(facts), present)
        write_bag(self.file(item), arrays, about, self._array_attributes(item, {"features": {}}))
        return EncodingStats(0, None)

    def _file_attributes(
        self, item: Mapping[str, Any], attributes: Mapping[str, Any], present: str | None
    ) -> dict[str, Any]:
        """Return the attributes of the file."""
        mpp = _slide_mpp(item) if SLIDE_MPP in self.keys else None
        resolution = {} if mpp is None else {SLIDE_MPP: mpp}
        identity = {str(BagKeys.CASE_ID): item[BagKeys.CASE_ID], "fingerprint": self.fingerprint}
        known = {} if present is None else {"input": present}
        return {**attributes, **resolution, **self.attributes, **identity, **known}

    def _array_attributes(self, item: Mapping[str, Any], described: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return the attributes of single arrays."""
        if self.describe is None:
            return {}
        identity = {"name": item[BagKeys.CASE_ID], "savetodir": self.folder.name}
        arrays = {name: {**attributes, **identity} for name, attributes in described.items()}
        encoder = {name: value for name, value in self.attributes.items() if name == "encoder"}
        return {**arrays, "features": {**encoder, **arrays.get("features", identity)}}


def _notes(values: Mapping[str, Any]) -> dict[str, str]:
    notes = values.get(NOTES)
    return {NOTES: notes} if notes and isinstance(notes, str) else {}


def _slide_mpp(item: Mapping[str, Any]) -> float | None:
    mpp = item.get(SLIDE_MPP)
    return None if mpp is None else float(mpp)


def _steps(transform: Any) -> list[Any]:
    return list(transform.flatten().transforms) if isinstance(transform, Compose) else [transform]
