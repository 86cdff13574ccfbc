"""Features of scans, computed once and kept in files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.config import KeysCollection
from monai.transforms import Compose, RandomizableTrait
from monai.utils import ensure_tuple
from tqdm import tqdm

from monai_mil_ext.utils import BagKeys, check_name, remove_stale_files, root_cause

from .bag_file import read_attributes, write_bag
from .fingerprints import fingerprint as fingerprint_of

__all__ = ["FeatureCache"]

PER_BAG = {str(BagKeys.AFFINE), str(BagKeys.SPATIAL_SHAPE), "grid_shape"}


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
        keys: what to keep: first the features, then arrays (N, ...) of the instances, and ``affine``, ``spatial_shape``
            and ``grid_shape`` of the bag. A key that a scan doesn't have (no reference, say) is left out of its file.
        fingerprint: of the configuration; None takes that of ``transform`` and ``keys``.
        progress: whether to show a bar.
        attributes: what every file says besides, such as the name of the ``encoder``.

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
    ) -> None:
        random = [type(t).__name__ for t in _steps(transform) if isinstance(t, RandomizableTrait)]
        if random:
            raise ValueError(f"`transform` must be deterministic to be computed once, got {random}.")
        self.transform = transform
        self.keys = tuple(str(key) for key in ensure_tuple(keys))
        self.fingerprint = fingerprint or fingerprint_of(transform, self.keys)
        self.folder = Path(cache_dir) / self.fingerprint[:12]
        self.progress = progress
        self.attributes = dict(attributes or {})

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
            return bool(read_attributes(self.file(item)).get("fingerprint") == self.fingerprint)
        except (FileNotFoundError, ValueError):
            return False

    def make(self, item: Mapping[str, Any]) -> int:
        """Make the features of ``item``; return how many instances they are of."""
        case = item[BagKeys.CASE_ID]
        try:
            result = self.transform(dict(item))
            features, *others = self.keys
            kept = {key: result[key] for key in others if key in result}
            arrays = {"features": result[features], **{k: v for k, v in kept.items() if k not in PER_BAG}}
            attributes = {k: v for k, v in kept.items() if k in PER_BAG}
            own = {str(BagKeys.CASE_ID): case, "fingerprint": self.fingerprint}
            write_bag(self.file(item), arrays, {**attributes, **self.attributes, **own})
            return len(result[features])
        except Exception as error:
            raise RuntimeError(f"case {case!r} gave no features: {root_cause(error)}") from error


def _steps(transform: Any) -> list[Any]:
    return list(transform.flatten().transforms) if isinstance(transform, Compose) else [transform]
