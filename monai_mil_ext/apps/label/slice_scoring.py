"""Scoring of localization: slice scores of a model against the masks of readers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from monai_mil_ext.metrics import instance_values

from ._monailabel import ScoringMethod
from .mask_labels import MASK_ENDINGS, slice_labels
from .scan_labels import PART, TAG

__all__ = ["SliceScoring"]

VALUES = ("instance_auroc", "pointing_game", "center_auroc")


class SliceScoring(ScoringMethod):
    """Scoring method that compares slice scores with the slices that readers' masks mark.

    Masks are used here and never in a training. Means are given separately for scans held out of the last training,
    those that it learned from, and others.

    Args:
        infer: inference function of the app, called with a request.
        model: name of the default model; a request may name another.
    """

    def __init__(self, infer: Callable[[Mapping[str, Any]], Mapping[str, Any]], model: str) -> None:
        super().__init__("Slice AUROC and top slice against the masks of readers, and those of the center of the scan")
        self.infer = infer
        self.model = model

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, Any]:
        """Return the values of every scan with a mask, their means, and the reasons of failures."""
        model = request.get("model") or self.model
        scans: dict[str, dict[str, Any]] = {}
        failed: dict[str, str] = {}
        options = {"model": model, "result_write_to_file": False, "save_label": False}
        for image in sorted(datastore.list_images()):
            try:
                mask = _mask(datastore, image)
                if mask is None:
                    continue
                answer = self.infer({**request, **options, "image": image})["params"]
                values = _compare(answer, mask)
            except Exception as error:  # a failed image must not stop the others
                failed[image] = str(getattr(error, "detail", error))
                continue
            part = (datastore.get_image_info(image).get(PART) or {}).get(model, "other")
            scans[image] = {"part": part, **values}
            datastore.update_image_info(image, {"slice_scores": {**scans[image], "model": model}})
        return {"model": model, "mean": _means(list(scans.values())), "scans": scans, "failed": failed}


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
