"""Pseudonyms of cases, for results that other people get."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_mil_ext.data.cohorts.table_file import read_table
from monai_mil_ext.utils import BagKeys, check_local, check_name

__all__ = ["pseudonymize"]

CASE, PSEUDONYM = str(BagKeys.CASE_ID), "pseudonym"


def pseudonymize(
    items: Sequence[Mapping[str, Any]], table: str | os.PathLike[str] | None = None
) -> list[dict[str, Any]]:
    r"""Replace the case ID of each item by its pseudonym, in all results but the patient of DICOM objects.

    No error names a case ID, which may identify a patient.

    Args:
        items: items with ``case_id``.
        table: table with the columns ``case_id`` and ``pseudonym``, which may list further cases; None keeps the IDs.

    Raises:
        ValueError: when a column is missing, a case has no pseudonym or several, two cases have the same, or a
            pseudonym can't be a file name.

    Example:
        >>> _ = Path("names.csv").write_text("case_id,pseudonym\nJane,a7\nJoe,b2\n")
        >>> pseudonymize([{"case_id": "Joe", "image": "scan.nii.gz"}], "names.csv")
        [{'case_id': 'b2', 'image': 'scan.nii.gz'}]
    """
    if table is None:
        return [dict(item) for item in items]
    check_local(pseudonyms=table)
    content = read_table(Path(table))
    missing = [column for column in (CASE, PSEUDONYM) if column not in content.columns]
    if missing:
        raise ValueError(
            f"`pseudonyms` must be a table with the columns {CASE} and {PSEUDONYM}, got none of {missing}."
        )
    for column in (CASE, PSEUDONYM):
        _check_unique(column, [row[column] for row in content.rows], content.numbers)
    for row in content.rows:
        check_name(pseudonym=row[PSEUDONYM])
    names = {row[CASE]: row[PSEUDONYM] for row in content.rows}
    unknown = sum(str(item[CASE]) not in names for item in items)
    if unknown:
        raise ValueError(f"`pseudonyms` must have every case, got none for {unknown} of {len(items)}.")
    return [{**item, CASE: names[str(item[CASE])]} for item in items]


def _check_unique(column: str, values: Sequence[str], numbers: Sequence[int]) -> None:
    counts = Counter(values)
    repeated = [str(number) for value, number in zip(values, numbers, strict=True) if counts[value] > 1]
    if repeated:
        raise ValueError(f"`pseudonyms` must have each {column} once, got the same in rows {', '.join(repeated)}.")
