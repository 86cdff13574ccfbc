"""Cohorts of scans in JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_mil_ext.utils import BagKeys, check_name

from .cohort_report import CohortReport, Issue

__all__ = ["check_scans"]

IDS = (str(BagKeys.CASE_ID), str(BagKeys.PATIENT))
PATHS = ("image", "reference")


def check_scans(path: Path) -> CohortReport:
    """Check a file of the form ``{"scans": [...]}``; see :py:func:`monai_mil_ext.data.check_cohort`.

    Raises:
        FileNotFoundError: when there is no such JSON file.
        ValueError: when it has another form.
    """
    if not path.is_file():
        raise FileNotFoundError(f"`path` must be a cohort file that exists, got {path.name!r}.")
    try:
        scans = json.loads(path.read_text(encoding="utf-8"))["scans"]
    except (ValueError, KeyError, TypeError):
        scans = None
    if not isinstance(scans, list) or not scans or not all(isinstance(scan, dict) for scan in scans):
        raise ValueError(f'`path` must be JSON of the form {{"scans": [{{...}}, ...]}}, got {path.name!r}.')
    root = path.parent
    errors = [Issue(f"scan {i}", text) for i, scan in enumerate(scans) for text in _problems(scan, root)]
    counts = Counter(str(scan.get("case_id")) for scan in scans if "case_id" in scan)
    errors += [Issue("", f"`case_id` must be unique, got {case!r} {n} times") for case, n in counts.items() if n > 1]
    invalid = {error.location for error in errors}
    items = [_resolve_paths(scan, root) for i, scan in enumerate(scans) if f"scan {i}" not in invalid]
    return CohortReport(path.name, len(scans), items, errors)


def _resolve_paths(scan: Mapping[str, Any], root: Path) -> dict[str, Any]:
    return {**scan, **{key: str(_resolve(scan[key], root)) for key in PATHS if key in scan}}


def _problems(scan: Mapping[str, Any], root: Path) -> list[str]:
    problems = [f"no `{key}`" for key in (*IDS, "image") if key not in scan]
    for key in IDS:
        if key in scan:
            try:
                check_name(**{key: scan[key]})
            except ValueError as error:
                problems.append(str(error))
    for key in PATHS:
        if key in scan:
            problems += _path_problems(key, scan[key], root)
    return problems


def _path_problems(key: str, value: Any, root: Path) -> list[str]:
    if not isinstance(value, str) or not value:
        return [f"`{key}` must be a path, got {value!r}"]
    if not _resolve(value, root).is_relative_to(root.resolve()):
        return [f"`{key}` must lie in the folder of the cohort, got {value!r}"]
    return [] if _resolve(value, root).exists() else [f"`{key}` must exist, got {value!r}"]


def _resolve(value: str, root: Path) -> Path:
    return (root / value).resolve()
