"""Results of a scan for clients: class scores, bands of slices, and the bands as a label map."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform

from monai_mil_ext.data import ScoreBands
from monai_mil_ext.data.scans.stack_grid import RESAMPLE
from monai_mil_ext.handlers.savers.class_columns import output_entry
from monai_mil_ext.transforms import SliceScoresToVolume
from monai_mil_ext.transforms.scans.slice_order import item_plane
from monai_mil_ext.utils import RESEARCH_USE, BagKeys, InputError, drop_padding, head_mean

from .output_scores import output_scores

__all__ = ["ScoresToLabelMapd", "scan_result"]

IRREGULAR = (
    "`image` must be a regular stack of slices for a label map, got those of an irregular series; "
    "`irregular` can be resample."
)


def scan_result(
    record: Mapping[str, Any], class_names: Sequence[str], slices: Sequence[Mapping[str, Any]], bands: ScoreBands
) -> dict[str, Any]:
    """Return ``prediction``, ``uncertainty`` and ``slices``, each slice with its ``band``.

    Args:
        record: task and output of the scan, see :py:func:`output_scores`.
        class_names: names of the classes, if the record has none.
        slices: records of slices with ``slice_index``, ``position_mm`` and ``attention``.
        bands: bands of slices.

    Example:
        >>> entry = {"slice_index": 0, "position_mm": 0.0, "attention": 1.0}
        >>> scan_result({"probability": [0.5, 0.5]}, ["benign", "malignant"], [entry], ScoreBands())["slices"]
        [{'slice_index': 0, 'position_mm': 0.0, 'attention': 1.0, 'band': 1}]
    """
    numbers = bands(np.array([entry["attention"] for entry in slices])).tolist()
    return {
        "use": RESEARCH_USE,
        **output_scores(record, class_names),
        "slices": [{**entry, "band": band} for entry, band in zip(slices, numbers, strict=True)],
    }


class ScoresToLabelMapd(MapTransform):
    """Replace probabilities or values (C,) with a label map of the bands, and add all other results as ``result``.

    It is the last transform in the ``postprocessing`` of a bundle that MONAI Label's app ``monaibundle`` serves. It
    uses ``attention`` (N,) or (N, A), and the items that :py:class:`monai_mil_ext.transforms.SliceBagd` adds.

    Args:
        keys: probabilities or values.
        class_names: names of the C classes.
        top_k: last rank of every band of slices.
        plane: plane of the slices; by default the item ``plane``, or else axial.
        task: see :py:class:`monai_mil_ext.transforms.BagProbabilities`.
        allow_missing_keys: whether to skip missing keys.
    """

    def __init__(
        self,
        keys: KeysCollection,
        class_names: Sequence[str],
        top_k: Sequence[int] = (4, 12),
        plane: str | None = None,
        task: str = "classification",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.class_names = tuple(class_names)
        self.bands = ScoreBands(top_k=tuple(top_k))
        self.plane = plane
        self.task = task

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the probabilities of each key with a label map (1, X, Y, Z)."""
        d = dict(data)
        if str(BagKeys.SLICE_POSITION) in d:
            raise InputError(IRREGULAR, RESAMPLE)
        to_volume = SliceScoresToVolume(item_plane(d, self.plane))
        for key in self.key_iterator(d):
            attention = head_mean(drop_padding(d[BagKeys.ATTENTION], d).float().cpu())
            index, position = (drop_padding(d[name], d) for name in (BagKeys.SLICE_INDEX, BagKeys.POSITION))
            columns = (index.tolist(), position.tolist(), attention.tolist())
            slices = [
                {"slice_index": i, "position_mm": round(p, 3), "attention": a} for i, p, a in zip(*columns, strict=True)
            ]
            d["result"] = scan_result(output_entry(d[key].tolist(), self.task), self.class_names, slices, self.bands)
            band = np.array([entry["band"] for entry in d["result"]["slices"]])
            d[key] = to_volume(band, index, d[BagKeys.AFFINE], d[BagKeys.SPATIAL_SHAPE])
        return d
