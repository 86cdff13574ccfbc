"""Columns of a table for the prediction of a bag."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from monai_mil_ext.utils import predicted_classes

__all__ = ["class_columns"]


def class_columns(
    probability: Sequence[float], class_names: Sequence[str] | None = None, task: str = "classification"
) -> dict[str, Any]:
    """Return ``prediction``, ``predicted_class`` (its name, if known) and ``probability_<c>`` of each class c.

    With the task ``"multilabel"`` there is a column ``prediction_<c>`` of 0 or 1 for each class instead of
    ``prediction``, and ``predicted_class`` has all names, separated by semicolons. With ``"survival"`` there are
    probabilities only.

    Example:
        >>> class_columns([0.25, 0.75], ["benign", "malignant"])
        {'prediction': 1, 'predicted_class': 'malignant', 'probability_0': 0.25, 'probability_1': 0.75}
    """
    columns = {f"probability_{c}": p for c, p in enumerate(probability)}
    predicted = predicted_classes(torch.tensor(probability), task)
    if predicted is None:
        return columns
    if isinstance(predicted, int):
        names = [] if class_names is None else [class_names[predicted]]
        numbers: dict[str, Any] = {"prediction": predicted}
    else:
        names = [name for name, one in zip(class_names or [], predicted, strict=False) if one]
        numbers = {f"prediction_{c}": one for c, one in enumerate(predicted)}
    return {**numbers, **({} if class_names is None else {"predicted_class": "; ".join(names)}), **columns}
