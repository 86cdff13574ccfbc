"""Cohorts of scans and of slides, loaded and checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_mil_ext.data.bags.bag_file import inspect_bag
from monai_mil_ext.utils import check_choice

from .case_lists import check_scan_list
from .check_report import CohortReport
from .cohort_checks import BagSummary, CohortChecks
from .cohort_table import check_table, merge_patients
from .columns import CohortColumns
from .table_file import TABLE_SUFFIXES

__all__ = [
    "check_cohort",
    "load_cohort",
    "load_slide_cohort",
]


def load_cohort(
    path: str | os.PathLike[str],
    columns: CohortColumns | None = None,
    checks: CohortChecks | None = None,
    root: str | os.PathLike[str] | None = None,
    level: str = "bag",
) -> list[dict[str, Any]]:
    """Load the items of a cohort; see :py:func:`check_cohort` for formats and arguments.

    Skipped bags cause a warning.

    Raises:
        FileNotFoundError: when there is no such file or folder.
        ValueError: when the file is not a table, or has errors, all of which are listed.
    """
    report = check_cohort(path, columns, checks, root, level)
    report.raise_if_errors()
    return report.items


def check_cohort(
    path: str | os.PathLike[str],
    columns: CohortColumns | None = None,
    checks: CohortChecks | None = None,
    root: str | os.PathLike[str] | None = None,
    level: str = "bag",
) -> CohortReport:
    """Check a cohort: a table of bag files (CSV, TSV, Excel), or a JSON list of scans.

    A row of a table names a bag, its patient and its label; see :py:class:`CohortColumns`. Its item has ``case_id``
    (the name of the file without suffix), ``patient``, ``image`` (the absolute path, for ``LoadBagd``),
    ``num_instances`` and, as requested, ``label``, ``time``, ``event`` and further columns. At level ``"patient"`` all
    bags of a patient are one item: ``case_id`` is the patient and ``image`` the list of paths, for ``LoadPatientBagd``.

    JSON is ``{"scans": [{"case_id": ..., "patient": ..., "image": ..., "reference": ...}, ...]}``, where ``image`` (a
    DICOM folder or a file) and the optional ``reference`` are relative to the JSON file; the items have absolute paths.
    Other entries are kept unchanged.

    Args:
        path: the table or JSON file.
        columns: meaning of the columns of a table.
        checks: checks of the bag files; by default their sizes are checked and bags without instances are skipped.
        root: folder of the bag files, by default that of the table; no path may lead out of it.
        level: ``"bag"`` or ``"patient"``.

    Raises:
        FileNotFoundError: when there is no such file or folder.
        ValueError: when the file is not a table. The report lists the errors in its content.
    """
    check_choice("level", level, ("bag", "patient"))
    file = Path(path)
    if file.suffix.lower() in TABLE_SUFFIXES:
        report = check_table(file, columns or CohortColumns(), checks or CohortChecks(), root or file.parent)
        return merge_patients(report) if level == "patient" else report
    if columns is not None or checks is not None or root is not None or level != "bag":
        raise ValueError(f"`path` must be .csv, .tsv or .xlsx if options of tables are given, got {file.name!r}.")
    return check_scan_list(file)


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
    """Checks that do not open slides, which is slow; encoding reports damaged slides anyway."""

    def inspect(self, path: str | os.PathLike[str]) -> BagSummary:
        """Return the summary of a bag with one instance."""
        return BagSummary(num_instances=1, in_features=1)
