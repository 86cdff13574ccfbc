"""The scans or bags that a study is about."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from monai_mil_ext.utils import check_choice

from .cohort_checks import CohortChecks
from .cohort_columns import CohortColumns
from .cohort_report import CohortReport
from .cohort_table import check_table
from .patient_items import merge_patients
from .scan_list import check_scans
from .table_file import TABLE_SUFFIXES

__all__ = ["check_cohort", "load_cohort"]


def load_cohort(
    path: str | os.PathLike[str],
    columns: CohortColumns | None = None,
    checks: CohortChecks | None = None,
    root: str | os.PathLike[str] | None = None,
    level: str = "bag",
) -> list[dict[str, Any]]:
    """Load the items of :py:func:`check_cohort`, or say everything that is wrong with them at once.

    Raises:
        FileNotFoundError: when there is no such file or folder.
        ValueError: when it is no such table, or has faults, all of which are listed. What was left out is a warning.
    """
    report = check_cohort(path, columns, checks, root, level)
    report.raise_faults()
    return report.items


def check_cohort(
    path: str | os.PathLike[str],
    columns: CohortColumns | None = None,
    checks: CohortChecks | None = None,
    root: str | os.PathLike[str] | None = None,
    level: str = "bag",
) -> CohortReport:
    """Check a cohort: a table of bag files (CSV, TSV, Excel), or a JSON list of scans.

    A row of a table names a bag, its patient and its label, see :py:class:`CohortColumns`. Its item has ``case_id``
    (the file's name without suffix), ``patient``, ``image`` (the absolute path, for ``LoadBagd``), ``num_instances``,
    and ``label``, ``time``, ``event`` and what else was asked for. At level ``"patient"`` all bags of a patient are one
    item: ``case_id`` is the patient and ``image`` the list of paths, for ``LoadPatientBagd``.

    JSON is ``{"scans": [{"case_id": ..., "patient": ..., "image": ..., "reference": ...}, ...]}``, where ``image`` (a
    DICOM folder or a file) and, where there is one, ``reference`` are relative to the JSON file; they come back
    absolute, and other entries as they are.

    Args:
        path: the table or JSON file.
        columns: of the table.
        checks: of the bag files; by default their sizes, and bags without instances are left out.
        root: folder of the bag files, that of the table by default; no path may lead out of it.
        level: ``"bag"`` or ``"patient"``.

    Raises:
        FileNotFoundError: when there is no such file or folder.
        ValueError: when it is no table at all. What is wrong inside is in the report.
    """
    check_choice("level", level, ("bag", "patient"))
    file = Path(path)
    if file.suffix.lower() in TABLE_SUFFIXES:
        report = check_table(file, columns or CohortColumns(), checks or CohortChecks(), root or file.parent)
        return merge_patients(report) if level == "patient" else report
    if columns is not None or checks is not None or root is not None or level != "bag":
        raise ValueError(f"`path` must be .csv, .tsv or .xlsx where options of tables are given, got {file.name!r}.")
    return check_scans(file)
