"""Whole scans as bags with one label each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["whole_scans"]

KEPT = ("case_id", "patient", "image", "label")


def whole_scans(scans: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return only case, patient, feature file and label of each scan, so that training can use nothing else.

    Raises:
        ValueError: if the label of a scan is missing or not 0 or 1; the message lists the cases.
    """
    wrong = [str(scan["case_id"]) for scan in scans if scan.get("label") not in (0, 1)]
    if wrong:
        raise ValueError(f"`label` must be 0 or 1 for every scan of the cohort, got others or none for {wrong[:5]}.")
    return [{key: scan[key] for key in KEPT} for scan in scans]
