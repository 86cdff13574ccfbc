"""Checks of the bag files of a cohort."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from monai_mil_ext.data.bags.bag_file import inspect_bag, read_bag
from monai_mil_ext.utils import check_choice

__all__ = ["BagSummary", "CohortChecks"]

FEATURES, COORDS = "features", "coords"


class BagSummary(NamedTuple):
    """Number and width of the instances of a bag file, and an error message or an empty string."""

    num_instances: int = 0
    in_features: int = 0
    error: str = ""


@dataclass(frozen=True)
class CohortChecks:
    """Settings of the checks of bag files.

    Sizes are always checked, without reading the features.

    Args:
        in_features: width of the features of every bag; ``None`` takes the most frequent width.
        on_empty: whether a bag without instances is skipped (``"skip"``) or an error (``"error"``).
        on_damaged: the same for a file that can't be read or fails a check.
        features: whether to read all features and check them for NaN and infinite values.
        coords: whether to read the coordinates and check them for duplicates.

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

    def inspect(self, path: str | os.PathLike[str]) -> BagSummary:
        """Check one bag file; an error is returned in the summary and not raised."""
        try:
            summary = _summary(path)
            if summary.error or not summary.num_instances:
                return summary
            return summary._replace(error=self._content_error(path))
        except (OSError, ValueError) as error:
            return BagSummary(error=str(error))

    def _content_error(self, path: str | os.PathLike[str]) -> str:
        if self.features:
            count = int((~read_bag(path)[FEATURES].isfinite()).sum())
            if count:
                return f"features must be finite, got {count} NaN or infinite values"
        if self.coords:
            coords = read_bag(path, [COORDS], allow_missing_keys=True).get(COORDS)
            duplicates = 0 if coords is None else len(coords) - len(torch.unique(coords, dim=0))
            if duplicates:
                return f"instances must have distinct coordinates, got {duplicates} duplicates"
        return ""

    def check_widths(self, summaries: Mapping[Path, BagSummary]) -> dict[Path, BagSummary]:
        """Add an error to each bag whose features have another width than required, or than most bags."""
        widths = Counter(summary.in_features for summary in summaries.values() if _is_valid(summary))
        if not widths:
            return dict(summaries)
        width, count = (self.in_features, 0) if self.in_features else widths.most_common(1)[0]
        rule = f"features must have {width} columns" + (f" as in {count} bags" if count else "")
        return {
            path: summary._replace(error=f"{rule}, got {summary.in_features}")
            if _is_valid(summary) and summary.in_features != width
            else summary
            for path, summary in summaries.items()
        }


def _is_valid(summary: BagSummary) -> bool:
    return bool(summary.num_instances) and not summary.error


def _summary(path: str | os.PathLike[str]) -> BagSummary:
    info = inspect_bag(path)
    if info.in_features is None:
        return BagSummary(error="a bag must have features, got coordinates only")
    return BagSummary(info.num_instances, info.in_features)
