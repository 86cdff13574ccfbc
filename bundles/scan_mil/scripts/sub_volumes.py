"""Bags of consecutive slices, and leave-one-patient-out folds."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from monai_mil_ext.data import read_bag
from monai_mil_ext.utils import BagKeys, check_choice

__all__ = ["fold", "sub_volumes"]

logger = logging.getLogger(__name__)


def sub_volumes(
    scans: Sequence[Mapping[str, Any]], num_bags: int = 80, sizes: tuple[int, int] = (8, 20), seed: int = 0
) -> list[dict[str, Any]]:
    """Cut scans into distinct bags of consecutive slices, half of them with tumor if possible.

    The label of a bag is 1 if any of its slices has tumor; training uses no other information of the contours. A scan
    with fewer slices than the smallest bag is logged.

    Args:
        scans: items of a feature cache, with ``case_id``, ``patient`` and the feature file ``image``.
        num_bags: largest number of bags of a scan.
        sizes: smallest and largest number of slices of a bag.
        seed: seed of the random draw; the bags of a scan do not depend on other scans.
    """
    bags = []
    for scan in scans:
        labels = read_bag(scan["image"], keys=[BagKeys.INSTANCE_LABEL])[BagKeys.INSTANCE_LABEL].numpy()
        rng = np.random.default_rng([seed, *str(scan["case_id"]).encode()])
        if len(labels) < sizes[0]:
            logger.warning(f"case {scan['case_id']!r} gives no bags: it has {len(labels)} slices of {sizes[0]} needed")
        windows = [(i, i + n) for n in range(sizes[0], sizes[1] + 1) for i in range(len(labels) - n + 1)]
        for label in (0, 1):
            fitting = [(i, j) for i, j in windows if labels[i:j].any() == label]
            chosen = rng.permutation(len(fitting))[: num_bags // 2]
            bags += [_bag(scan, *fitting[k], label) for k in sorted(chosen)]
    return bags


def _bag(scan: Mapping[str, Any], start: int, stop: int, label: int) -> dict[str, Any]:
    case = f"{scan['case_id']}_slices{start}-{stop - 1}"
    return {
        "image": scan["image"], "start": start, "stop": stop, "label": label,
        "case_id": case, "patient": scan["patient"],
    }  # fmt: skip


def fold(bags: Sequence[Mapping[str, Any]], test_patient: str, test: bool) -> list[Mapping[str, Any]]:
    """Return the bags of ``test_patient`` or, unless ``test``, those of all other patients.

    If the bags of ``test_patient`` are of one class only, it is logged, since they have no AUROC.

    Raises:
        ValueError: if there is no such patient, or the bags of all other patients are of one class only.
    """
    check_choice("test_patient", test_patient, sorted({bag["patient"] for bag in bags}))
    chosen = [bag for bag in bags if (bag["patient"] == test_patient) == test]
    classes = {bag["label"] for bag in chosen if "label" in bag}
    has_one_class = bool(classes) and classes < {0, 1}
    if has_one_class and test:
        logger.warning(f"Test patient {test_patient!r} has bags of class {min(classes)} only: they have no AUROC.")
    elif has_one_class:
        raise ValueError(f"`bags` must have two classes without {test_patient!r}, got class {min(classes)} only.")
    return chosen
