"""Check that a bag comes from the source that a model was trained on."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils.enums import TransformBackends

from monai_mil_ext.data import InstanceSource
from monai_mil_ext.data.cohorts.case_lists import is_feature_file
from monai_mil_ext.utils import BagKeys, SourceMismatchError, as_flag

from .input_facts import input_facts

__all__ = ["CheckSourceD", "CheckSourceDict", "CheckSourced"]

ALLOW = "--allow_mismatch true"
AGREES = "agrees with the training"
UNKNOWN = "not checked: it is not known what the model was trained on"


def scan_facts(meta: Mapping[Any, Any]) -> dict[str, Any]:
    """Return what the metadata of a scan state: lowest and highest value, and modality, which DICOM may leave empty."""
    low, high = meta.get("value_range", (meta.get("lowest"), meta.get("highest")))
    modality = str(meta.get("modality") or "").strip()
    facts = {"modality": None if modality.lower() in ("", "unknown") else modality, "lowest": low, "highest": high}
    return {name: value for name, value in facts.items() if value is not None}


def compare_source(trained: InstanceSource | None, source: InstanceSource, allow_mismatch: bool = False) -> str:
    """Compare a source with that of the training, for results.

    Returns:
        ``"agrees with the training"``, or what could not be checked, or with ``allow_mismatch`` what differs.

    Raises:
        SourceMismatchError: (a ``ValueError``) when the source is another one; the message names all differences.
    """
    if trained is None:
        return UNKNOWN
    difference = trained.compare(source)
    if difference:
        if not allow_mismatch:
            raise SourceMismatchError(difference.message(), ALLOW)
        return f"mismatch: {difference.message()}"
    return f"not checked: {', '.join(difference.unknown)}" if difference.unknown else AGREES


class CheckSourced(MapTransform):
    """Check that encoder, resolution, window and other preprocessing of a bag are those of the training.

    A feature file states its source itself. The source of a slide or scan is ``given``: the options of the
    preprocessing that is about to run. For slices, the metadata of the scan add modality and range of values. Put this
    transform before the loader, where it costs no encoding, and for scans after it too.

    An item gets ``source_check``: ``"agrees with the training"``, or what could not be checked, or with
    ``allow_mismatch`` what differs. Savers write it beside the result.

    Args:
        keys: instances, or the path from which they will be made.
        trained: source of the training; ``None`` if it is unknown, so that nothing is checked.
        given: values of :py:class:`monai_mil_ext.data.InstanceSource` that the options of this run determine.
        meta_key: key of the slices, whose metadata state ``modality``, ``lowest`` and ``highest``.
        allow_mismatch: whether to mark an item that differs instead of raising.
        allow_missing_keys: whether to skip missing keys.

    Raises:
        SourceMismatchError: (a ``ValueError``) when the source is another one; the message names all differences.

    Example:
        >>> trained = InstanceSource(window=(-1000, 400), plane="axial")
        >>> check = CheckSourced("image", trained, given={"window": [-160, 240], "plane": "axial"}, allow_mismatch=True)
        >>> check({"image": "scan.nii.gz"})["source_check"]
        'mismatch: trained on window -1000 to 400, got window -160 to 240'
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        keys: KeysCollection,
        trained: InstanceSource | None,
        given: Mapping[str, Any] | None = None,
        meta_key: str = "slices",
        allow_mismatch: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.trained = trained
        self.given = dict(given or {})
        self.meta_key = meta_key
        self.allow_mismatch = as_flag(allow_mismatch)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check the source of the item."""
        d = dict(data)
        for key in self.key_iterator(d):
            source = self._source(d, key)
            try:
                d[BagKeys.SOURCE_CHECK] = compare_source(self.trained, source, self.allow_mismatch)
            except SourceMismatchError as error:
                facts = input_facts(d)
                error.add_facts(*(facts.get(name, ()) for name in ("container", "shape", "spacing")))
                raise
        return d

    def _source(self, d: Mapping[Hashable, Any], key: Hashable) -> InstanceSource:
        values = dict(self.given)
        if isinstance(d[key], (str, Path)):
            if is_feature_file(d[key]):
                stated = InstanceSource.from_bag(d[key], str(key), d.get("slide"))
                return replace(stated, width=None)  # a file of another width is unreadable
        else:
            if d[key].ndim == 2:  # features
                values["width"] = d[key].shape[-1]
            slices = d[key] if isinstance(d[key], MetaTensor) else d.get(self.meta_key)
            if isinstance(slices, MetaTensor):
                values.update(scan_facts(slices.meta))
                values.update({"spacing": d["spacing"]} if "spacing" in d else {})
        return InstanceSource.from_values(values)


CheckSourceD = CheckSourceDict = CheckSourced
