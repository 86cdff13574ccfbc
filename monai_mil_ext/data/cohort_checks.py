"""Looking into bag files before training starts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from monai_mil_ext.utils import check_choice

from .bag_file import inspect_bag, read_bag

__all__ = ["BagHead", "CohortChecks"]

FEATURES, COORDS = "features", "coords"


class BagHead(NamedTuple):
    """What is known of a bag file: how many instances, of which width, and what is wrong with it."""

    num_instances: int = 0
    in_features: int = 0
    fault: str = ""


@dataclass(frozen=True)
class CohortChecks:
    """What is looked at in each bag file, and what happens to those that fail.

    Sizes are looked at always, and read without the features.

    Args:
        in_features: the width that every bag must have; ``None``: the width that most have.
        on_empty: whether a bag without instances is left out (``"skip"``) or a fault (``"error"``).
        on_damaged: the same for a file that can't be read or fails a check.
        features: whether to read all features and look for NaN and infinite values.
        coords: whether to read the coordinates and look for instances at the same place.

    Raises:
        ValueError: when a policy is neither ``"skip"`` nor ``"error"``.
    """

    in_features: int | None = None
    on_empty: str = "skip"
    on_damaged: str = "error"
    features: bool = False
    coords: bool = False

    def __post_init__(self) -> None:
        for name in ("on_empty", "on_damaged"):
            check_choice(name, getattr(self, name), ("skip", "error"))

    def look(self, path: str | os.PathLike[str]) -> BagHead:
        """Look into one bag file; nothing is raised for what is wrong with it."""
        try:
            head = _head(path)
            return head if head.fault or not head.num_instances else head._replace(fault=self._deep_fault(path))
        except (OSError, ValueError) as error:
            return BagHead(fault=str(error))

    def _deep_fault(self, path: str | os.PathLike[str]) -> str:
        if self.features:
            wrong = int((~read_bag(path)[FEATURES].isfinite()).sum())
            if wrong:
                return f"features must be finite, got {wrong} NaN or infinite values"
        if self.coords:
            coords = read_bag(path, [COORDS], allow_missing_keys=True).get(COORDS)
            doubled = 0 if coords is None else len(coords) - len(torch.unique(coords, dim=0))
            if doubled:
                return f"instances must have coordinates of their own, got {doubled} at a place that is taken"
        return ""

    def check_widths(self, heads: Mapping[Path, BagHead]) -> dict[Path, BagHead]:
        """Add a fault to each bag whose features have not the width that is asked for, or that most have."""
        widths = Counter(head.in_features for head in heads.values() if head.num_instances and not head.fault)
        if not widths:
            return dict(heads)
        width, count = (self.in_features, 0) if self.in_features else widths.most_common(1)[0]
        rule = f"features must have {width} columns" + (f" as in {count} bags" if count else "")
        return {
            path: head._replace(fault=f"{rule}, got {head.in_features}")
            if head.num_instances and not head.fault and head.in_features != width
            else head
            for path, head in heads.items()
        }


def _head(path: str | os.PathLike[str]) -> BagHead:
    info = inspect_bag(path)
    if info.in_features is None:
        return BagHead(fault="a bag must have features, got coordinates only")
    return BagHead(info.num_instances, info.in_features)
