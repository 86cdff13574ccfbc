"""Fixed parts of a study: those of a file of splits, or of the column ``split`` of the cohort."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from monai_mil_ext.data import load_splits
from monai_mil_ext.utils import check_choice

from .fold_patients import CASE

__all__ = ["column_parts", "file_parts", "has_column"]

PARTS = ("train", "val", "test")
Part = Mapping[str, Sequence[str]]
MAX_NAMES = 5  # of cases in a message
logger = logging.getLogger(__name__)


def has_column(items: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a case has a fixed part."""
    return any(map(_part, items))


def column_parts(items: Sequence[Mapping[str, Any]], on_bad: str) -> list[Part]:
    """Return the fold that the column ``split`` describes.

    Raises:
        ValueError: if a part is unknown, or, with ``on_bad="refuse"``, missing for some of the cases.
    """
    fold: dict[str, list[str]] = {part: [] for part in PARTS}
    unassigned: list[str] = []
    for item in items:
        part = _part(item)
        if part:
            check_choice("split", part, PARTS)
        fold.get(part, unassigned).append(str(item[CASE]))
    _report_unassigned("cases without a `split`", unassigned, on_bad)
    return [fold]


def file_parts(path: str | os.PathLike[str], items: Sequence[Mapping[str, Any]], on_bad: str) -> list[Part]:
    """Return the folds of a file of splits; see :py:func:`monai_mil_ext.data.load_splits`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no file of splits, or, with ``on_bad="refuse"``, has other cases than the cohort.
    """
    splits = load_splits(path, items, on_bad)
    cases = {str(item[CASE]) for item in items}
    folds: list[Part] = [
        {part: [case for case in fold[part] if case in cases] for part in PARTS} for fold in splits.folds
    ]
    named = {case for fold in splits.folds for part in PARTS for case in fold[part]}
    _report_unassigned("cases of the file that are not in the cohort", sorted(named - cases), on_bad)
    _report_unassigned("cases of the cohort that are in no part", sorted(cases - named), on_bad)
    return folds


def _part(item: Mapping[str, Any]) -> str:
    return str(item.get("split") or "").strip().lower()


def _report_unassigned(text: str, names: Sequence[str], on_bad: str) -> None:
    if not names:
        return
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    if on_bad == "refuse":
        listed = f"{len(names)} {text}: {', '.join(map(repr, names[:MAX_NAMES]))}{more}"
        raise ValueError(f"the fixed parts must name each case of the cohort, got {listed}. --on_bad skip goes on.")
    logger.warning("Fixed parts: %d %s are left out.", len(names), text)
