"""Cohorts of slides whose features are computed on loading."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_mil_ext.utils import check_choice

from .bag_file import inspect_bag
from .cohort_checks import BagSummary, CohortChecks
from .cohort_columns import CohortColumns
from .cohort_report import CohortReport
from .cohort_table import check_table
from .patient_items import merge_patients

__all__ = ["load_slide_cohort"]


def load_slide_cohort(
    path: str | os.PathLike[str],
    encode: Callable[[Sequence[dict[str, Any]]], list[dict[str, Any]]],
    columns: CohortColumns | None = None,
    root: str | os.PathLike[str] | None = None,
    level: str = "bag",
) -> list[dict[str, Any]]:
    """Load a table of slides, compute missing features and return items of feature files.

    The column ``bag`` holds the path of a slide relative to ``root``. The items are those that :py:func:`load_cohort`
    returns for a table of the feature files.

    Args:
        path: the table.
        encode: function that computes missing features and replaces the slides of the items by feature files, such as a
            :py:class:`FeatureCache`.
        columns: meaning of the columns of the table.
        root: folder of the slides, by default that of the table; no path may lead out of it.
        level: ``"bag"``, or ``"patient"`` for one item per patient with all slides.

    Raises:
        FileNotFoundError: when there is no such table.
        ValueError: when the table has errors, all of which are listed.
    """
    check_choice("level", level, ("bag", "patient"))
    file = Path(path)
    report = check_table(file, columns or CohortColumns(), _SlideChecks(), root or file.parent)
    report.raise_if_errors()
    items = [{**item, "num_instances": inspect_bag(item["image"]).num_instances} for item in encode(report.items)]
    if level == "bag":
        return items
    merged = merge_patients(CohortReport(file.name, len(items), items))
    merged.raise_if_errors()
    return merged.items


@dataclass(frozen=True)
class _SlideChecks(CohortChecks):
    """Checks that open no slide: that takes long, and the encoding reports damaged slides anyway."""

    def inspect(self, path: str | os.PathLike[str]) -> BagSummary:
        """Return the summary of a bag with one instance."""
        return BagSummary(num_instances=1, in_features=1)
