"""Prediction of an image for clients: a score for each class, or the values of a task without classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai_mil_ext.handlers.savers.class_columns import recorded_output
from monai_mil_ext.utils import format_times
from monai_mil_ext.utils.probabilities import OUTPUT_NAMES, WITHOUT_CLASSES

from .active_learning import UNCERTAINTY, normalized_entropy

__all__ = ["output_scores"]


def output_scores(record: Mapping[str, Any], class_names: Sequence[str] = ()) -> dict[str, Any]:
    """Return ``prediction``, a label and a score for each output, and ``uncertainty``, from 0 to 1.

    Uncertainty is the entropy of the class probabilities, of several labels the mean of theirs, and ``None`` for a task
    without classes.

    Args:
        record: ``prediction.json``: ``task`` and ``probability``, ``survival``, ``value`` or ``risk``.
        class_names: names of the classes, if the record has none; numbers take the place of names of another count.

    Example:
        >>> output_scores({"task": "regression", "value": 61.5})
        {'prediction': [{'idx': 0, 'label': 'value', 'score': 61.5}], 'uncertainty': None}
    """
    output, task = recorded_output(record), record.get("task", "classification")
    labels = _labels(record, output, task, class_names)
    entropy = {UNCERTAINTY: _uncertainty(output, task)}
    pairs = enumerate(zip(labels, output, strict=True))
    return {"prediction": [{"idx": i, "label": label, "score": score} for i, (label, score) in pairs], **entropy}


def _labels(record: Mapping[str, Any], output: Sequence[float], task: str, class_names: Sequence[str]) -> list[str]:
    if task in WITHOUT_CLASSES:
        ends = format_times(record.get("bin_edges", ()), len(output))
        is_single = task != "survival" and len(output) == 1
        return [OUTPUT_NAMES[task] if is_single else f"{OUTPUT_NAMES[task]} {end}" for end in ends]
    names = list(record.get("class_names") or class_names)
    return names if len(names) == len(output) else format_times((), len(output))


def _uncertainty(output: Sequence[float], task: str) -> float | None:
    if task in WITHOUT_CLASSES:
        return None
    if task == "multilabel":
        return sum(normalized_entropy([p, 1 - p]) for p in output) / len(output)
    return normalized_entropy(output)
