"""Thresholds at which the probabilities of a bag become a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from monai_mil_ext.utils import predicted_classes

__all__ = ["at_operating_points", "decided_classes", "threshold_text"]


def at_operating_points(
    probability: Sequence[float], class_names: Sequence[str] | None, points: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return the operating points of a model, each with whether the probability of its class reaches its threshold.

    Args:
        probability: probability of each class.
        class_names: names of the classes; points of other classes are left out.
        points: ``name``, ``class_name`` and ``threshold`` of each, as in :py:class:`monai_mil_ext.data.ModelRecord`.

    Example:
        >>> at_operating_points([0.7, 0.3], ["benign", "malignant"], [{"class_name": "malignant", "threshold": 0.2}])
        [{'class_name': 'malignant', 'threshold': 0.2, 'is_positive': True}]
    """
    names = [] if class_names is None else list(class_names)
    known = [point for point in points if point.get("class_name") in names and point.get("threshold") is not None]
    return [{**p, "is_positive": probability[names.index(p["class_name"])] >= p["threshold"]} for p in known]


def decided_classes(
    probability: Sequence[float],
    task: str = "classification",
    class_names: Sequence[str] | None = None,
    points: Sequence[Mapping[str, Any]] = (),
) -> int | list[int] | None:
    """Return the class that the probabilities of a bag predict, at the operating points of the model where it has any.

    Of two classes, and for each of several labels, the first operating point decides in the place of 0.5. Otherwise the
    class is that of :py:func:`monai_mil_ext.utils.predicted_classes`.

    Example:
        >>> point = {"class_name": "tumor", "threshold": 0.2}
        >>> decided_classes([0.7, 0.3], class_names=["no tumor", "tumor"], points=[point])
        1
    """
    predicted = predicted_classes(torch.as_tensor(probability), task)
    reached = at_operating_points(probability, class_names, points)
    if class_names is None or not reached:
        return predicted
    index = [list(class_names).index(point["class_name"]) for point in reached]
    if isinstance(predicted, list):
        for c, point in reversed([*zip(index, reached, strict=True)]):  # the first point of a class is applied last
            predicted[c] = int(point["is_positive"])
    elif task == "classification" and len(class_names) == 2:
        return index[0] if reached[0]["is_positive"] else 1 - index[0]
    return predicted


def threshold_text(
    probability: Sequence[float],
    task: str = "classification",
    class_names: Sequence[str] | None = None,
    points: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Return the threshold of a prediction and the class it leads to, for titles; an empty text if there is none.

    Of two classes the more probable one is predicted, which is a threshold of 0.5, unless there are operating points.

    Example:
        >>> threshold_text([0.52, 0.48], class_names=["no tumor", "tumor"])
        'threshold 0.5: no tumor'
        >>> point = {"name": "screening", "class_name": "tumor", "threshold": 0.2}
        >>> threshold_text([0.52, 0.48], class_names=["no tumor", "tumor"], points=[point])
        'threshold 0.2, screening: tumor'
    """
    reached = at_operating_points(probability, class_names, points)
    if reached and class_names is not None:
        return "; ".join(_point_text(point, class_names) for point in reached)
    if task == "multilabel":
        return "threshold 0.5 of each" if len(probability) > 1 else "threshold 0.5"
    predicted = predicted_classes(torch.as_tensor(probability), task)
    if task != "classification" or len(probability) != 2 or not isinstance(predicted, int):
        return ""
    return f"threshold 0.5: {f'class {predicted}' if class_names is None else class_names[predicted]}"


def _point_text(point: Mapping[str, Any], class_names: Sequence[str]) -> str:
    label = f"threshold {point['threshold']:g}{', ' + str(point['name']) if point.get('name') else ''}"
    others = [name for name in class_names if name != point["class_name"]]
    other = others[0] if len(others) == 1 else f"not {point['class_name']}"
    return f"{label}: {point['class_name'] if point['is_positive'] else other}"
