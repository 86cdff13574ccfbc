"""A table of slides that becomes a table of their features."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_mil_ext.utils import check_choice

from .bag_file import inspect_bag
from .cohort_checks import BagHead, CohortChecks
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
    """Load a table of slides as :py:func:`load_cohort` loads one of feature files, and have the features made.

    The column ``bag`` names a slide by its path in ``root``. The items come back as if the table had named the files
    of features.

    Args:
        path: the table.
        encode: makes the features that are missing and puts their files in the place of the slides, such as a
            :py:class:`FeatureCache`.
        columns: of the table.
        root: folder of the slides, that of the table by default; no path may lead out of it.
        level: ``"bag"``, or ``"patient"`` for one item of all slides of a patient.

    Raises:
        FileNotFoundError: when there is no such table.
        ValueError: when it has faults, all of which are listed.
    """
    check_choice("level", level, ("bag", "patient"))
    file = Path(path)
    report = check_table(file, columns or CohortColumns(), _SlideChecks(), root or file.parent)
    report.raise_faults()
    items = [{**item, "num_instances": inspect_bag(item["image"]).num_instances} for item in encode(report.items)]
    if level == "bag":
        return items
    merged = merge_patients(CohortReport(file.name, len(items), items))
    merged.raise_faults()
    return merged.items


@dataclass(frozen=True)
class _SlideChecks(CohortChecks):
    """A slide is not looked into here: opening each takes long, and its encoding tells what is wrong with it."""

    def look(self, path: str | os.PathLike[str]) -> BagHead:
        """One instance of any width."""
        return BagHead(num_instances=1, in_features=1)
