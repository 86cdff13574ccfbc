"""Instances of a bag that hold a lesion with a stated probability, for the results of inference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_mil_ext.metrics import ConformalInstances
from monai_mil_ext.utils import BagKeys, drop_padding

__all__ = ["INSTANCE_SET", "IN_SET", "instance_set", "set_columns", "set_label"]

INSTANCE_SET = "instance_set"  # key of the set in prediction.json
IN_SET = "in_set"  # of an instance, in tables and measurements: 1 or 0
MEAN = "mean"


def instance_set(
    item: Mapping[str, Any], record: Mapping[str, Any], check: str = "", names: tuple[str, str] = ("instance", "bag")
) -> dict[str, Any]:
    """Select the instances of a bag by the calibration of its model, as entry of ``prediction.json``.

    Args:
        item: item of the bag with ``scores`` (N,).
        record: content of ``conformal.json``, see :py:class:`monai_mil_ext.handlers.InstanceSetHandler`.
        check: comparison of the input with that of the training; no set is shown if it is a mismatch.
        names: name of an instance, and of a bag.

    Returns:
        ``sentence`` for readers, ``target``, ``confidence``, ``num_calibration_bags``; and ``num_needed``,
        ``num_instances``, ``abstained`` and ``indices`` (K,) of the set, or the reason why it is ``missing``.

    Example:
        >>> import torch
        >>> bags, labels = [torch.tensor([0.5, 0.3, 0.2])] * 9, [torch.tensor([1, 0, 0])] * 9
        >>> record = ConformalInstances().fit(bags, labels).to_dict()
        >>> entry = instance_set({"scores": torch.tensor([0.1, 0.2, 0.7])}, record)
        >>> entry["indices"], entry["sentence"]
        ([2], 'If the bag has a lesion, this 1 of 3 instances includes at least one instance with ...')
    """
    sets = ConformalInstances.from_dict(record)
    stated = {"target": sets.target, "confidence": 1 - sets.alpha, "num_calibration_bags": sets.num_bags}
    scores = drop_padding(item[BagKeys.SCORES], item)
    reason = _reason(item, record, check, len(scores), names)
    if reason:
        return {"sentence": f"No set of {names[0]}s: {reason}.", **stated, "missing": reason}
    chosen = sets.select(scores)
    return {
        "sentence": sets.describe(chosen, *names),
        **stated,
        "num_needed": chosen.num_needed,
        "num_instances": chosen.num_instances,
        "abstained": chosen.abstained,
        "indices": [] if chosen.abstained else chosen.indices.tolist(),
    }


def _reason(item: Mapping[str, Any], record: Mapping[str, Any], check: str, size: int, names: tuple[str, str]) -> str:
    """Return why the calibration says nothing of a bag, or an empty text."""
    source, trained = item.get(BagKeys.SCORE_SOURCE, MEAN), record.get("score_source", MEAN)
    low, high = record.get("bag_sizes") or (size, size)
    if record.get("missing"):
        return str(record["missing"])
    if check.startswith("mismatch"):
        return "the input differs from that of the training"
    if source != trained:
        return f"the calibration is of the attention {trained}, not {source}"
    if not low <= size <= high:
        return f"the {names[1]} has {size} {names[0]}s, those of the calibration {low} to {high}"
    return ""


def set_columns(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a table for the set in ``prediction.json``: size (empty without a set) and confidence.

    Example:
        >>> set_columns({"instance_set": {"num_needed": 3, "abstained": False, "confidence": 0.9}})
        {'set_size': 3, 'set_confidence': 0.9}
    """
    entry = result.get(INSTANCE_SET)
    if entry is None:
        return {}
    size = "" if entry.get("abstained", True) else entry["num_needed"]
    return {"set_size": size, "set_confidence": entry["confidence"]}


def set_label(entry: Mapping[str, Any], instance: str = "slice") -> str:
    """Describe a set in the legend of a picture.

    Example:
        >>> set_label({"num_needed": 3, "num_instances": 36, "confidence": 0.9})
        'these 3 of 36 slices, 90 %'
    """
    needed, count = entry["num_needed"], entry["num_instances"]
    these = "this" if needed == 1 else "these"
    return f"{these} {needed:,} of {count:,} {instance}s, {100 * entry['confidence']:g} %"
