"""The list of scans that a study is about."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_mil_ext.utils import BagKeys, check_name

__all__ = ["load_cohort"]

IDS = (str(BagKeys.CASE_ID), str(BagKeys.PATIENT))
PATHS = ("image", "reference")


def load_cohort(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Load the scans of ``{"scans": [{"case_id": ..., "patient": ..., "image": ..., "reference": ...}, ...]}``.

    ``image`` (a DICOM folder or a file) and, where there is one, ``reference`` are relative to the JSON file and must
    not leave its folder; they come back absolute. Other entries of a scan come back as they are.

    Raises:
        FileNotFoundError: when there is no such JSON file.
        ValueError: when it is no such list; everything that is wrong with it is listed at once.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"`path` must be a cohort file that exists, got {file.name!r}.")
    try:
        scans = json.loads(file.read_text(encoding="utf-8"))["scans"]
    except (ValueError, KeyError, TypeError):
        scans = None
    if not isinstance(scans, list) or not scans or not all(isinstance(scan, dict) for scan in scans):
        raise ValueError(f'`path` must be JSON of the form {{"scans": [{{...}}, ...]}}, got {file.name!r}.')
    problems = [f"scan {i}: {text}" for i, scan in enumerate(scans) for text in _problems(scan, file.parent)]
    counts = Counter(str(scan.get("case_id")) for scan in scans if "case_id" in scan)
    problems += [f"`case_id` {case!r} stands there {n} times" for case, n in counts.items() if n > 1]
    if problems:
        raise ValueError("\n  ".join([f"{file.name} must be a sound cohort, got {len(problems)} faults:", *problems]))
    return [{**scan, **{key: str(_resolve(scan[key], file.parent)) for key in PATHS if key in scan}} for scan in scans]


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
