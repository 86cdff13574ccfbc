"""Loading and checking of cohorts: tables of bag files and JSON lists of scans."""

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
    return check_scans(file)
