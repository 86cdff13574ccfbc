"""Merging of all bags of a patient into one item."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from monai_mil_ext.utils import BagKeys

from .cohort_report import CohortReport, Issue

__all__ = ["merge_patients"]

PER_BAG = ("image", "num_instances", str(BagKeys.INSTANCE_LABEL), str(BagKeys.CASE_ID))


def merge_patients(report: CohortReport) -> CohortReport:
    """Merge all valid bags of each patient into one item: lists of per-bag values, single shared values.

    Shared values that differ between bags of a patient, such as two labels, are an error.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for item in report.items:
        groups.setdefault(item[str(BagKeys.PATIENT)], []).append(item)
    report.items = []
    for patient, bags in groups.items():
        conflicts = _conflicts(patient, bags)
        report.errors += conflicts
        if not conflicts:
            report.items.append(_merged(patient, bags))
    return report


def _conflicts(patient: str, bags: list[dict[str, Any]]) -> list[Issue]:
    errors = []
    for key in bags[0]:
        values = [_plain(bag.get(key)) for bag in bags]
        if key not in PER_BAG and len({str(value) for value in values}) > 1:
            cases = ", ".join(f"{value} for {bag['case_id']!r}" for value, bag in zip(values, bags, strict=True))
            errors.append(Issue(f"patient {patient!r}", f"`{key}` must be the same for all bags, got {cases}"))
    return errors


def _merged(patient: str, bags: list[dict[str, Any]]) -> dict[str, Any]:
    item = {**bags[0], str(BagKeys.CASE_ID): patient, "image": [bag["image"] for bag in bags]}
    item["num_instances"] = sum(bag["num_instances"] for bag in bags)
    labels = [bag.get(str(BagKeys.INSTANCE_LABEL)) for bag in bags]
    if any(labels):
        item[str(BagKeys.INSTANCE_LABEL)] = labels
    return item


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value
