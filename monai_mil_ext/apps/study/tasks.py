"""Task of a study: what its labels are, and how predictions and labels become arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monai_mil_ext.utils import check_choice

__all__ = ["KINDS", "Task", "as_names"]

KINDS = ("classification", "multilabel", "ordinal", "regression", "survival", "cox")
WITH_CLASSES = ("classification", "multilabel", "ordinal")


@dataclass(frozen=True)
class Task:
    """Task of a study.

    Args:
        kind: one of the tasks below.
        class_names: names of the classes in order, or of the labels of ``"multilabel"``.
        bin_edges: increasing right edges of the T time bins of ``"survival"``; the last one may be infinite.

    ==================== ======== =============== ================================================================
    kind                 logits   truth           output
    ==================== ======== =============== ================================================================
    ``"classification"`` C        (R,) class      (R, C) probabilities; of two classes, the second is the positive
    ``"multilabel"``     C        (R, C), NaN:    (R, C) independent probabilities
                                  unknown
    ``"ordinal"``        C - 1    (R,) class      (R, C) probabilities
    ``"regression"``     1        (R,) value      (R, 1) values in the unit of the labels
    ``"survival"``       T        (R, 2) time,    (R, 1) risk, higher for an earlier event; discrete-time hazards
                                  event
    ``"cox"``            1        (R, 2) time,    (R, 1) risk, the log partial hazard
                                  event
    ==================== ======== =============== ================================================================

    Raises:
        ValueError: if the kind is unknown, or names or bins do not fit it.

    Example:
        >>> task = Task("classification", ("benign", "malignant"))
        >>> task.truth([{"label": 1}, {"label": 0}]), task.num_logits
        (array([1, 0]), 2)
    """

    kind: str
    class_names: Sequence[str] = ()
    bin_edges: Sequence[float] = ()

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        object.__setattr__(self, "class_names", tuple(map(str, self.class_names)))
        object.__setattr__(self, "bin_edges", tuple(map(float, self.bin_edges)))
        least = {"classification": 2, "ordinal": 3, "multilabel": 1}.get(self.kind, 0)
        names = self.class_names
        if len(names) < least or len(set(names)) < len(names) or bool(names) != (self.kind in WITH_CLASSES):
            raise ValueError(
                f"`class_names` must be {least or 'no'} or more different names for {self.kind}, got {list(names)}."
                if least
                else f"`class_names` must be empty for {self.kind}, got {list(names)}."
            )

    @property
    def is_binary(self) -> bool:
        """True for two exclusive classes."""
        return self.kind == "classification" and len(self.class_names) == 2

    @property
    def has_times(self) -> bool:
        """True if labels are times of events or of censoring."""
        return self.kind in ("survival", "cox")

    @property
    def num_logits(self) -> int:
        """Number of outputs of a network."""
        return {
            "ordinal": len(self.class_names) - 1,
            "regression": 1,
            "cox": 1,
            "survival": len(self.bin_edges),
        }.get(self.kind, len(self.class_names))

    def truth(self, items: Sequence[Mapping[str, Any]]) -> NDArray[Any]:
        """Return the labels of items as the array of the table above."""
        if self.has_times:
            return np.array([[float(item["time"]), float(item["event"])] for item in items])
        if self.kind == "multilabel":
            return np.stack([np.asarray(torch.as_tensor(item["label"]), dtype=float) for item in items])
        return np.array([float(i["label"]) if self.kind == "regression" else int(i["label"]) for i in items])

    def classes(self, items: Sequence[Mapping[str, Any]]) -> list[str] | None:
        """Return the name of the class of each item, by which folds are stratified, or None for a regression.

        For ``"multilabel"`` it is the combination of labels, and for survival whether the event was observed.
        """
        if self.kind == "regression":
            return None
        truth = self.truth(items)
        if self.has_times:
            return ["event" if event else "censored" for event in truth[:, 1]]
        if self.kind == "multilabel":
            names = np.array(self.class_names)
            return ["+".join(names[row == 1]) or "none" for row in truth]
        return [self.class_names[label] for label in truth]


def as_names(names: str | Sequence[str] | None) -> list[str]:
    """Return a list of names, which a command line gives as text with commas, or as several names.

    Example:
        >>> as_names("age, sex"), as_names(("age", "sex")), as_names(None)
        (['age', 'sex'], ['age', 'sex'], [])
    """
    parts = names.split(",") if isinstance(names, str) else names or ()
    return [str(part).strip() for part in parts if str(part).strip()]
