"""Prediction of a bag in a record of results and in the columns of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai_mil_ext.utils import format_times
from monai_mil_ext.utils.probabilities import OUTPUT_NAMES, WITHOUT_CLASSES

from .thresholds import decided_classes

__all__ = ["class_columns", "output_entry", "recorded_output"]

PROBABILITY = "probability"


def class_columns(
    output: Sequence[float],
    class_names: Sequence[str] | None = None,
    task: str = "classification",
    points: Sequence[Mapping[str, Any]] = (),
    bin_edges: Sequence[float | None] = (),
) -> dict[str, Any]:
    """Return ``prediction``, ``predicted_class`` (its name, if known) and ``probability_<c>`` of each class c.

    With the task ``"multilabel"`` there is a column ``prediction_<c>`` of 0 or 1 for each class instead of
    ``prediction``, and ``predicted_class`` has all names, separated by semicolons. Tasks without classes have other
    columns: ``survival_<t>``, where t is the end of a time bin or its number; ``value``, or ``value_<i>`` of several;
    ``risk``.

    Args:
        output: probabilities or values.
        class_names: names of the classes.
        task: see :py:class:`monai_mil_ext.transforms.BagProbabilities`.
        points: operating points of the model, see :py:func:`decided_classes`.
        bin_edges: ends of the time bins of ``"survival"``.

    Example:
        >>> class_columns([0.25, 0.75], ["benign", "malignant"])
        {'prediction': 1, 'predicted_class': 'malignant', 'probability_0': 0.25, 'probability_1': 0.75}
        >>> class_columns([0.9, 0.4], task="survival", bin_edges=[12, 24]), class_columns([61.5], task="regression")
        ({'survival_12': 0.9, 'survival_24': 0.4}, {'value': 61.5})
    """
    name = OUTPUT_NAMES.get(task, PROBABILITY)
    if task in WITHOUT_CLASSES and task != "survival" and len(output) == 1:
        return {name: output[0]}
    ends = format_times(bin_edges if task == "survival" else (), len(output))
    columns = {f"{name}_{end}": value for end, value in zip(ends, output, strict=True)}
    predicted = decided_classes(output, task, class_names, points)
    if predicted is None:
        return columns
    if isinstance(predicted, int):
        names = [] if class_names is None else [class_names[predicted]]
        numbers: dict[str, Any] = {"prediction": predicted}
    else:
        names = [name for name, one in zip(class_names or [], predicted, strict=False) if one]
        numbers = {f"prediction_{c}": one for c, one in enumerate(predicted)}
    return {**numbers, **({} if class_names is None else {"predicted_class": "; ".join(names)}), **columns}


def output_entry(
    output: Sequence[float],
    task: str = "classification",
    class_names: Sequence[str] | None = None,
    points: Sequence[Mapping[str, Any]] = (),
    bin_edges: Sequence[float | None] = (),
) -> dict[str, Any]:
    """Return the ``task`` and the output of a bag for a record: ``probability`` and ``prediction``, or other values.

    Args:
        output: probabilities or values.
        task: see :py:class:`monai_mil_ext.transforms.BagProbabilities`.
        class_names: names of the classes.
        points: operating points of the model, see :py:func:`decided_classes`.
        bin_edges: ends of the time bins of ``"survival"``.

    Example:
        >>> output_entry([-0.3], "cox")
        {'task': 'cox', 'risk': -0.3, 'unit': 'logarithm of the hazard, relative to other cases'}
    """
    name, values = OUTPUT_NAMES.get(task, PROBABILITY), list(output)
    entry: dict[str, Any] = {"task": task}
    if task not in WITHOUT_CLASSES:
        return entry | {name: values, "prediction": decided_classes(values, task, class_names, points)}
    if task == "survival":
        return entry | {name: values} | ({"bin_edges": list(bin_edges)} if len(bin_edges) else {})
    unit = {"unit": "logarithm of the hazard, relative to other cases"} if task == "cox" else {}
    return entry | {name: values[0] if len(values) == 1 else values} | unit


def recorded_output(record: Mapping[str, Any]) -> list[float]:
    """Return the probabilities or values of a record.

    Example:
        >>> recorded_output({"task": "regression", "value": 61.5}), recorded_output({"probability": [0.4, 0.6]})
        ([61.5], [0.4, 0.6])
    """
    values = record[OUTPUT_NAMES.get(record.get("task", ""), PROBABILITY)]
    return list(values) if isinstance(values, (list, tuple)) else [values]
