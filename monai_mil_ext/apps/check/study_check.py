"""Check as the first step of a study: of its table before anything is encoded, and of its items."""

from __future__ import annotations

import csv
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from monai_mil_ext.data import item_identity
from monai_mil_ext.utils import load_json, quiet_loggers, write_json
from monai_mil_ext.utils.remote import as_path

from .check_settings import CASE, CheckSettings
from .table_check import TableCheck, check_items

__all__ = ["CheckedItems", "check_study_items", "load_checked"]

Items = list[dict[str, Any]]
LEFT_OUT, TOLD = "left_out.csv", "Cases with a problem are left out."
LOGGER = logging.getLogger("monai_mil_ext.data.cohorts.check_report")


class CheckedItems(NamedTuple):
    """Items that a study can use, sorted by case, those that are left out with reasons, and notes for its report."""

    usable: Items
    left_out: list[dict[str, str]]
    notes: list[str]


def load_checked(
    check: TableCheck, load: Callable[[], Items], on_bad: str, output_dir: str | os.PathLike[str]
) -> Items:
    """Print the check of a table with all of its problems, and load the cohort if they allow it.

    A case is told once: by the check, or if it is left out later, such as by its encoding, after the loading.

    Args:
        check: check of the table, before anything is encoded.
        load: function that loads the items, and leaves out what can't be used.
        on_bad: ``"refuse"``, or ``"skip"`` to leave out cases that have a problem.
        output_dir: folder with the ``left_out.csv`` of ``load``.

    Raises:
        ValueError: when problems keep the cohort from its use.
    """
    if on_bad != "skip":
        check.raise_if_problems(on_bad)  # with all problems in its message
    sys.stdout.write(check.text(max_rows=0, hint=TOLD) + "\n")
    check.raise_if_problems("skip")
    with quiet_loggers(LOGGER, level=logging.ERROR):
        items = load()
    path = as_path(output_dir) / LEFT_OUT
    rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines()) if path.exists() else []
    for row in rows:
        if row["case"] not in check.bad_cases:
            sys.stdout.write(f"{row['case']} is left out: {row['reason']}\n")
    return items


def check_study_items(items: Sequence[Mapping[str, Any]], settings: CheckSettings, memory: Path) -> CheckedItems:
    """Check the items of feature files from headers, and read each file once for NaN and infinite values.

    Args:
        items: the items.
        settings: settings of the check.
        memory: JSON file of the identities of items whose features were read, so that they are not read again.

    Raises:
        ValueError: when the cohort as a whole has problems, or no item can be used.
    """
    known = {name for name, problem in load_json(memory).items() if not problem} if memory.exists() else set()
    check = check_items(items, replace(settings, kind="bags"), finite=known)
    reasons: dict[str, list[str]] = {}
    for problem in check.problems:
        if problem.case:
            reasons.setdefault(problem.case, []).append(problem.message)
    usable = sorted((dict(item) for item in items if str(item[CASE]) not in reasons), key=lambda item: str(item[CASE]))
    write_json(memory, {identity: "" for item in usable if (identity := item_identity(item))})
    left_out = [{"case_id": case, "reason": "; ".join(texts)} for case, texts in sorted(reasons.items())]
    check.raise_if_problems("skip")
    return CheckedItems(usable, left_out, check.study_notes())
