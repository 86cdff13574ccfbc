"""Scoring of localization: slice scores of a model against the masks of readers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from monai_mil_ext.metrics import instance_values

from .active_learning import ImageScoring
from .mask_labels import MASK_ENDINGS, slice_labels
from .scan_labels import PART, TAG

__all__ = ["SliceScoring"]

VALUES = ("instance_auroc", "pointing_game", "center_auroc")


class SliceScoring(ImageScoring):
    """Scoring method that compares slice scores with the slices that readers' masks mark.

    Masks are used here and never in a training. Means are given separately for scans held out of the last training,
    those that it learned from, and others.

    Args:
        infer: inference function of the app, called with a request.
        model: name of the default model; a request may name another.
    """

    def __init__(self, infer: Callable[[Mapping[str, Any]], Mapping[str, Any]], model: str) -> None:
        about = "Slice AUROC and top slice against the masks of readers, and those of the center of the scan"
        super().__init__(about, infer, model)

    def score(self, image: str, request: Mapping[str, Any], datastore: Any) -> dict[str, Any] | None:
        """Return the values of a scan with a mask, and its part in the training of the model."""
        mask = _mask(datastore, image)
        if mask is None:
            return None
        values = _compare(self.answer(image, request), mask)
        part = (datastore.get_image_info(image).get(PART) or {}).get(request["model"], "other")
        return {"part": part, **values}

    def image_info(self, score: dict[str, Any], model: str) -> dict[str, Any]:
        """Return the values, and of which model they are."""
        return {"slice_scores": {**score, "model": model}}

    def result(self, scored: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        """Return the values of every scan, and their means."""
        return {"mean": _means(list(scored.values())), "scans": dict(scored)}


def _mask(datastore: Any, image: str) -> str | None:
    """Return the file of the final mask of an image, or None."""
    if TAG not in datastore.get_labels_by_image_id(image):
        return None
    file = str(datastore.get_label_uri(image, TAG))
    return file if file.lower().endswith(MASK_ENDINGS) and not file.endswith(".bin") else None


def _compare(answer: Mapping[str, Any], mask: str) -> dict[str, float]:
    slices = answer["slices"]
    index, position, score = ([s[key] for s in slices] for key in ("slice_index", "position_mm", "attention"))
    truth = slice_labels(mask, answer["plane"], index, position)
    if len(truth.unique()) < 2:
        raise ValueError("a mask with voxels in all slices or in none says nothing about the slices")
    found = instance_values(torch.tensor(score), truth)
    return {name: found[name] for name in VALUES}


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return number and means of the scans of each part."""
    means = {}
    for part in sorted({row["part"] for row in rows}):
        own = [row for row in rows if row["part"] == part]
        means[part] = {"scans": len(own), **{name: math.fsum(row[name] for row in own) / len(own) for name in VALUES}}
    return means
