"""What clients are told of a scan: class scores, slices and their bands, and the bands as a label map."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from monai_mil_ext.data import SliceBands
from monai_mil_ext.transforms import SliceScoresToVolume
from monai_mil_ext.utils import RESEARCH_USE, BagKeys

from .uncertainty import normalized_entropy

__all__ = ["SliceViewd", "scan_result"]


def scan_result(
    probability: Sequence[float], class_names: Sequence[str], slices: Sequence[Mapping[str, Any]], bands: SliceBands
) -> dict[str, Any]:
    """Give ``prediction``, ``uncertainty`` and ``slices``, each slice with its ``band``.

    Args:
        probability: of each class.
        class_names: of the same.
        slices: with ``slice_index``, ``position_mm`` and ``attention``.
        bands: which of them stand out.

    Example:
        >>> one = {"slice_index": 0, "position_mm": 0.0, "attention": 1.0}
        >>> scan_result([0.5, 0.5], ["benign", "malignant"], [one], SliceBands())["slices"]
        [{'slice_index': 0, 'position_mm': 0.0, 'attention': 1.0, 'band': 1}]
    """
    number = bands(np.array([one["attention"] for one in slices])).tolist()
    return {
        "use": RESEARCH_USE,
        "prediction": [
            {"idx": i, "label": name, "score": score}
            for i, (name, score) in enumerate(zip(class_names, probability, strict=True))
        ],
        "uncertainty": normalized_entropy(probability),
        "slices": [{**one, "band": band} for one, band in zip(slices, number, strict=True)],
    }


class SliceViewd(MapTransform):
    """Put the label map of the bands in the place of class probabilities (C,), and what else is told into ``result``.

    The last of a bundle's ``postprocessing`` where MONAI Label's own app ``monaibundle`` is to serve it. It reads
    ``attention`` (N,) or (N, A), and what :py:class:`monai_mil_ext.transforms.SliceBagd` left beside the bag.

    Args:
        keys: probabilities; the first ones are taken.
        class_names: of the C classes.
        top_k: the last rank of every band of slices.
        plane: of the slices.
        allow_missing_keys: whether to pass over a key that is not there.
    """

    def __init__(
        self,
        keys: KeysCollection,
        class_names: Sequence[str],
        top_k: Sequence[int] = (4, 12),
        plane: str = "axial",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.class_names = tuple(class_names)
        self.bands = SliceBands(top_k=tuple(top_k))
        self.plane = plane

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Turn the probabilities of every key into a label map (1, X, Y, Z)."""
        d = dict(data)
        for key in self.key_iterator(d):
            attention = torch.as_tensor(d[BagKeys.ATTENTION]).float().cpu()
            attention = attention.mean(-1) if attention.ndim == 2 else attention
            columns = (d[BagKeys.SLICE_INDEX].tolist(), d[BagKeys.POSITION].tolist(), attention.tolist())
            slices = [
                {"slice_index": i, "position_mm": round(p, 3), "attention": a} for i, p, a in zip(*columns, strict=True)
            ]
            d["result"] = scan_result(d[key].tolist(), self.class_names, slices, self.bands)
            band = np.array([one["band"] for one in d["result"]["slices"]])
            geometry = (d[BagKeys.SLICE_INDEX], d[BagKeys.AFFINE], d[BagKeys.SPATIAL_SHAPE])
            d[key] = SliceScoresToVolume(self.plane)(band, *geometry)
        return d
