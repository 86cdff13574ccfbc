"""Features of scans, computed once and kept in files."""

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

from monai_mil_ext.utils import BagKeys, EmptyBagError, check_choice, check_name, remove_stale_files, root_cause

from .bag_file import read_attributes, write_bag
from .fingerprints import fingerprint as fingerprint_of

__all__ = ["FeatureCache", "MadeBag"]

SLIDE_MPP = "slide_mpp"  # of an item: it changes what is computed
PER_BAG = {str(BagKeys.AFFINE), str(BagKeys.SPATIAL_SHAPE), "grid_shape", "tile_size", "unit", "mpp", SLIDE_MPP}
EMPTY = {"status": "empty"}
Describe = Callable[[Mapping[str, Any]], Mapping[str, Mapping[str, Any]]]


class MadeBag(NamedTuple):
    """What was made of a scan."""

    instances: int
    encode_seconds: float | None  # in which the encoder was at work, where that is known


class FeatureCache:
    """Run ``transform`` on every scan that has no feature file yet, and give items whose image is that file.

    The files are ``<cache_dir>/<fingerprint[:12]>/<case_id>.h5``: another encoder, another weight or another window
    is another folder, so features of two kinds never meet. A file that is damaged or has another fingerprint inside
    is made again; each is written as a whole or not at all, so that a killed run goes on where it was, and several
    processes may fill one folder: what another one has made meanwhile is not made again. Of a scan the file holds
    features, the asked keys, the case id and the fingerprint: no path, no DICOM tag.

    Args:
        cache_dir: folder of all features.
        transform: deterministic; turns an item into one whose first key holds the features (N, F).
        keys: what to keep: first the features, then arrays (N, ...) of the instances, and of the bag ``affine``,
            ``spatial_shape``, ``grid_shape``, ``tile_size``, ``unit``, ``mpp`` and ``slide_mpp``. A key that a scan
            doesn't have (no reference, say) is left out of its file. With ``slide_mpp``, an item that tells another one
            than its file is made again.
        fingerprint: of the configuration; None takes that of ``transform`` and ``keys``.
        progress: whether to show a bar.
        attributes: what every file says besides, such as the name of the ``encoder``.
        describe: from the item with features to attributes of single arrays, as
            :py:meth:`monai_mil_ext.data.TileGrid.describe` gives them in TRIDENT's words. ``name`` (the case id) and
            ``savetodir`` (the folder's name) join them.
        on_empty: what a scan without instances, a slide without tissue say, is: ``"error"``, or with ``"write"`` a file
            of features (0, 0), which readers take for an empty bag, with the ``status`` ``"empty"``.

    Raises:
        ValueError: when ``transform`` is random, or items have no, no possible or a repeated case id.
        RuntimeError: when ``transform`` fails; the case and the cause are named.
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
        """Make what is missing; return ``items`` with the path of the feature file in place of the scan."""
        missing = self.missing(items)
        for item in tqdm(missing, desc="features of scans", disable=not (self.progress and missing)):
            if not self.is_done(item):
                self.make(item)
        return [{**item, self.keys[0]: str(self.file(item))} for item in items]

    def missing(self, items: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Those of ``items`` that have no features yet; leftovers of writers that died go."""
        cases = [item.get(BagKeys.CASE_ID) for item in items]
        for case in cases:
            check_name(case_id=case)  # type: ignore[arg-type]
        repeated = sorted(case for case, n in Counter(map(str, cases)).items() if n > 1)
        if repeated:
            raise ValueError(f"`case_id` must be different for every scan, got {repeated} more than once.")
        remove_stale_files(self.folder)
        return [item for item in items if not self.is_done(item)]

    def file(self, item: Mapping[str, Any]) -> Path:
        """The feature file of ``item``, whether it is there or not."""
        return self.folder / f"{item[BagKeys.CASE_ID]}.h5"

    def is_done(self, item: Mapping[str, Any]) -> bool:
        """Whether ``item`` has features of this configuration."""
        try:
            told = read_attributes(self.file(item))
            same = SLIDE_MPP not in self.keys or told.get(SLIDE_MPP) == _slide_mpp(item)
            return bool(same and told.get("fingerprint") == self.fingerprint)
        except (FileNotFoundError, ValueError):
            return False

    def is_empty(self, item: Mapping[str, Any]) -> bool:
        """Whether ``item`` has a file that says that it has no instances."""
        return self.is_done(item) and EMPTY.items() <= read_attributes(self.file(item)).items()

    def make(self, item: Mapping[str, Any]) -> MadeBag:
        """Make the features of ``item``."""
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

    def _write(self, item: Mapping[str, Any], result: Mapping[str, Any]) -> MadeBag:
        features, *others = self.keys
        kept = {key: result[key] for key in others if result.get(key) is not None}
        arrays = {"features": result[features], **{k: v for k, v in kept.items() if k not in PER_BAG}}
        attributes = {k: v for k, v in kept.items() if k in PER_BAG - {SLIDE_MPP}}
        described = {} if self.describe is None else self.describe(result)
        write_bag(self.file(item), arrays, self._all(item, attributes), self._of_arrays(item, described))
        return MadeBag(len(result[features]), result.get("encode_seconds"))

    def _write_empty(self, item: Mapping[str, Any]) -> MadeBag:
        arrays = {"features": np.empty((0, 0), dtype=np.float32)}
        if "coords" in self.keys:
            arrays["coords"] = np.empty((0, 2), dtype=np.int64)
        write_bag(self.file(item), arrays, self._all(item, EMPTY), self._of_arrays(item, {"features": {}}))
        return MadeBag(0, None)

    def _all(self, item: Mapping[str, Any], attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Attributes of the file."""
        mpp = _slide_mpp(item) if SLIDE_MPP in self.keys else None
        told = {} if mpp is None else {SLIDE_MPP: mpp}
        own = {str(BagKeys.CASE_ID): item[BagKeys.CASE_ID], "fingerprint": self.fingerprint}
        return {**attributes, **told, **self.attributes, **own}

    def _of_arrays(self, item: Mapping[str, Any], described: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Attributes of single arrays."""
        if self.describe is None:
            return {}
        own = {"name": item[BagKeys.CASE_ID], "savetodir": self.folder.name}
        words = {array: {**told, **own} for array, told in described.items()}
        return {**words, "features": {**self.attributes, **words.get("features", own)}}


def _slide_mpp(item: Mapping[str, Any]) -> float | None:
    told = item.get(SLIDE_MPP)
    return None if told is None else float(told)


def _steps(transform: Any) -> list[Any]:
    return list(transform.flatten().transforms) if isinstance(transform, Compose) else [transform]
