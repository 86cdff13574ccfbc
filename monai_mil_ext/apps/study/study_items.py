"""Items of a study from what the configs of bundles give: lists of names and scans with the cells of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_mil_ext.data import CohortColumns, CohortReport
from monai_mil_ext.data.cohorts.check_report import Issue
from monai_mil_ext.utils import BagKeys

__all__ = ["as_names", "label_items"]

CASE = str(BagKeys.CASE_ID)


def as_names(names: str | Sequence[str] | None) -> list[str]:
    """Return a list of names, which a command line gives as text with commas, or as several names.

    Example:
        >>> as_names("age, sex"), as_names(("age", "sex")), as_names(None)
        (['age', 'sex'], ['age', 'sex'], [])
    """
    parts = names.split(",") if isinstance(names, str) else names or ()
    return [str(part).strip() for part in parts if str(part).strip()]


def label_items(
    items: Sequence[Mapping[str, Any]], columns: CohortColumns, on_bad: str = "refuse", output_dir: str | None = None
) -> list[dict[str, Any]]:
    """Add the labels and further columns of a study to items that have the cells of their table as text.

    Args:
        items: items of scans, such as those of :py:func:`monai_mil_ext.data.load_scan_cohort`.
        columns: columns of the study, see :py:func:`monai_mil_ext.data.study_columns`.
        on_bad: ``"refuse"`` raises one exception with all errors, ``"skip"`` leaves out the cases that have one.
        output_dir: folder of the list of cases that are left out.

    Raises:
        ValueError: when a label is missing or unknown; all are listed.

    Example:
        >>> items = [{"case_id": "a", "image": "a.h5", "grade": "high"}]
        >>> label_items(items, CohortColumns(label="grade", classes=["low", "high"]))[0]["label"]
        1
    """
    report = CohortReport("cohort", len(items))
    for item in items:
        row = {name: str(item.get(name, "")) for name in columns.names}
        values, errors = columns.values(row)
        case = str(item[CASE])
        report.errors += [Issue(f"case {case!r}", error, case) for error in errors]
        if not errors:
            report.items.append({**item, **values})
    folder = None if output_dir is None else Path(output_dir)
    return report.usable_items(on_bad, folder) if report.errors else report.items
