"""Cache of the features of scans or slides, in bag files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.config import KeysCollection
from monai.transforms import Compose, RandomizableTrait
from monai.utils import ensure_tuple
from tqdm import tqdm

from monai_mil_ext.data.bags.bag_file import read_attributes, write_bag
from monai_mil_ext.utils import BagKeys, EmptyBagError, check_choice, check_name, remove_stale_files
from monai_mil_ext.utils.exceptions import root_cause

from .fingerprints import fingerprint as fingerprint_of

__all__ = ["EncodingStats", "FeatureCache"]

SLIDE_MPP = "slide_mpp"  # key of items that affects the features
PER_BAG = {str(BagKeys.AFFINE), str(BagKeys.SPATIAL_SHAPE), "grid_shape", "tile_size", "unit", "mpp", SLIDE_MPP}
PER_BAG |= {"modality", "lowest", "highest", "spacing"}  # what a scan states of itself
EMPTY = {"status": "empty"}
Describe = Callable[[Mapping[str, Any]], Mapping[str, Mapping[str, Any]]]


class EncodingStats(NamedTuple):
    """Number of encoded instances of a scan, and the time that it took."""

    instances: int
    encode_seconds: float | None  # in which the encoder was busy, if known


class FeatureCache:
    """Cache of features: runs ``transform`` on every scan without a feature file.

    Files are ``<cache_dir>/<fingerprint[:12]>/<case_id>.h5``, so that features of different encoders, weights or
    windows are in different folders. A file that is damaged or has another fingerprint is computed again. Files are
    written atomically: an interrupted run can be continued, and several processes may fill one folder, where files that
    another process has finished in the meantime are not computed again. A file contains features, the requested keys,
    the case ID and the fingerprint of a scan, but no path and no DICOM tag.

    Args:
        cache_dir: folder of all features.
        transform: deterministic transform to an item whose first key holds the features (N, F).
        keys: keys to save: first the features, then arrays (N, ...) of the instances, and of the bag ``affine``,
            ``spatial_shape``, ``grid_shape``, ``tile_size``, ``unit``, ``mpp`` and ``slide_mpp``. Keys that a scan
            lacks, such as a reference, are omitted. With ``slide_mpp``, an item whose value differs from that of its
            file is computed again. Of the bag are also ``modality``, ``lowest``, ``highest`` and ``spacing`` of a scan.
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
        RuntimeError: when ``transform`` fails; the message names case and cause.
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
        self.folder = Path(cache_dir) / self.fingerprint[:12]
        self.progress = progress
        self.attributes = dict(attributes or {})
        self.describe = describe
        self.on_empty = on_empty

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Compute missing features, and return ``items`` with the path of the feature file instead of the scan."""
        missing = self.missing(items)
        for item in tqdm(missing, desc="features of scans", disable=not (self.progress and missing)):
            if not self.is_done(item):
                self.make(item)
        return [{**item, self.keys[0]: str(self.file(item))} for item in items]

    def missing(self, items: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return the ``items`` without features, and remove temporary files of interrupted writers."""
        cases = [item.get(BagKeys.CASE_ID) for item in items]
        for case in cases:
            check_name(case_id=case)  # type: ignore[arg-type]
        repeated = sorted(case for case, n in Counter(map(str, cases)).items() if n > 1)
        if repeated:
            raise ValueError(f"`case_id` must be different for every scan, got {repeated} more than once.")
        remove_stale_files(self.folder)
        return [item for item in items if not self.is_done(item)]

    def file(self, item: Mapping[str, Any]) -> Path:
        """Return the path of the feature file of ``item``, which need not exist."""
        return self.folder / f"{item[BagKeys.CASE_ID]}.h5"

    def is_done(self, item: Mapping[str, Any]) -> bool:
        """Return whether ``item`` has a feature file of this configuration."""
        try:
            attributes = read_attributes(self.file(item))
            same_mpp = SLIDE_MPP not in self.keys or attributes.get(SLIDE_MPP) == _slide_mpp(item)
            return bool(same_mpp and attributes.get("fingerprint") == self.fingerprint)
        except (FileNotFoundError, ValueError):
            return False

    def is_empty(self, item: Mapping[str, Any]) -> bool:
        """Return whether ``item`` has a feature file that marks it as empty."""
        return self.is_done(item) and EMPTY.items() <= read_attributes(self.file(item)).items()

    def make(self, item: Mapping[str, Any]) -> EncodingStats:
        """Compute and write the features of ``item``."""
        try:
            try:
                result = self.transform(dict(item))
            except Exception as error:
                if self.on_empty == "error" or not isinstance(root_cause(error), EmptyBagError):
                    raise
                return self._write_empty(item)
            return self._write(item, result)
        except Exception as error:
            case = item[BagKeys.CASE_ID]
            raise RuntimeError(f"case {case!r} gave no features: {root_cause(error)}") from error

    def _write(self, item: Mapping[str, Any], result: Mapping[str, Any]) -> EncodingStats:
        features, *others = self.keys
        values = {key: result[key] for key in others if result.get(key) is not None}
        arrays = {"features": result[features], **{k: v for k, v in values.items() if k not in PER_BAG}}
        attributes = {k: v for k, v in values.items() if k in PER_BAG - {SLIDE_MPP}}
        described = {} if self.describe is None else self.describe(result)
        write_bag(
            self.file(item), arrays, self._file_attributes(item, attributes), self._array_attributes(item, described)
        )
        return EncodingStats(len(result[features]), result.get("encode_seconds"))

    def _write_empty(self, item: Mapping[str, Any]) -> EncodingStats:
        arrays = {"features": np.empty((0, 0), dtype=np.float32)}
        if "coords" in self.keys:
            arrays["coords"] = np.empty((0, 2), dtype=np.int64)
        write_bag(
            self.file(item), arrays, self._file_attributes(item, EMPTY), self._array_attributes(item, {"features": {}})
        )
        return EncodingStats(0, None)

    def _file_attributes(self, item: Mapping[str, Any], attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Return the attributes of the file."""
        mpp = _slide_mpp(item) if SLIDE_MPP in self.keys else None
        resolution = {} if mpp is None else {SLIDE_MPP: mpp}
        identity = {str(BagKeys.CASE_ID): item[BagKeys.CASE_ID], "fingerprint": self.fingerprint}
        return {**attributes, **resolution, **self.attributes, **identity}

    def _array_attributes(self, item: Mapping[str, Any], described: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return the attributes of single arrays."""
        if self.describe is None:
            return {}
        identity = {"name": item[BagKeys.CASE_ID], "savetodir": self.folder.name}
        arrays = {name: {**attributes, **identity} for name, attributes in described.items()}
        encoder = {name: value for name, value in self.attributes.items() if name == "encoder"}
        return {**arrays, "features": {**encoder, **arrays.get("features", identity)}}


def _slide_mpp(item: Mapping[str, Any]) -> float | None:
    mpp = item.get(SLIDE_MPP)
    return None if mpp is None else float(mpp)


def _steps(transform: Any) -> list[Any]:
    return list(transform.flatten().transforms) if isinstance(transform, Compose) else [transform]
