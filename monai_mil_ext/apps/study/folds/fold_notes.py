"""Notes on the folds of a study: rare classes, small sites, confounding, contradictory labels, copies of bags."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from monai_mil_ext.apps.study.tasks import Task
from monai_mil_ext.data import CohortSplits
from monai_mil_ext.data.features import content_identity
from monai_mil_ext.utils import resolve_path
from monai_mil_ext.utils.remote import ObjectPath, is_remote

from .fixed_parts import PARTS
from .fold_patients import PATIENT, FoldPatient
from .site_association import describe_class_by_site, describe_value_by_site

__all__ = ["describe_bias", "describe_folds"]

SMALL = 5  # patients of a site
BLOCK = 512  # bytes


def describe_folds(splits: CohortSplits, patients: Sequence[FoldPatient], num_folds: int, by: str) -> list[str]:
    """Return notes on the parts of the folds.

    Args:
        splits: the folds.
        patients: the patients.
        num_folds: number of folds that was asked for.
        by: kind of the folds, see :py:class:`FoldPlan`, or ``"fixed"``.
    """
    notes = []
    count = splits.repeats.count(0)
    if by in ("patient", "spread") and count < num_folds:
        notes.append(f"{count} folds are used instead of {num_folds}, because a class has too few patients.")
    if by == "site":
        notes.append(f"Each of the {count} sites is the test part of one fold; `num_folds` has no effect.")
    if by == "fixed":
        notes += _unassigned(splits)
    notes += _missing_classes(splits, patients)
    if any(patient.site for patient in patients):
        notes += [*_site_notes(patients, by), *_single_classes(patients)]
    return notes


def describe_bias(
    items: Sequence[Mapping[str, Any]], patients: Sequence[FoldPatient], task: Task, by: str
) -> list[str]:
    """Return notes on the cohort: confounding of site and label, contradictory labels and copies of bags."""
    advice = "" if by == "site" else " Compare with folds by site (folds_by: site)."
    confounding = [note + advice for note in _confounding(items, patients, task)]
    return [*confounding, *_contradictions(items, patients, task), *_copies(items)]


def _unassigned(splits: CohortSplits) -> Iterator[str]:
    used = {case for fold in splits.folds for part in PARTS for case in fold[part]}
    left = len(splits.patients) - len(used)
    if left:
        yield f"{_count(left, 'case')} without a fixed part {'is' if left == 1 else 'are'} not used."


def _missing_classes(splits: CohortSplits, patients: Sequence[FoldPatient]) -> Iterator[str]:
    of_case = {case: patient for patient in patients for case in patient.cases}
    total = Counter(name for patient in patients for name in patient.classes)
    for part in PARTS:
        folds = [fold for fold in splits.folds if fold[part]]
        found = Counter(n for fold in folds for n in {n for case in fold[part] for n in of_case[case].classes})
        kind = {"train": "training", "val": "validation", "test": "test"}[part]
        for name in sorted(total):
            if found[name] < len(folds):
                yield (
                    f"Class {name!r} ({_count(total[name], 'patient')}) is missing in the {kind} part of "
                    f"{len(folds) - found[name]} of {_count(len(folds), 'fold')}."
                )


def _site_notes(patients: Sequence[FoldPatient], by: str) -> Iterator[str]:
    members: dict[str, list[FoldPatient]] = defaultdict(list)
    for patient in patients:
        members[patient.site].append(patient)
    unknown = sum("" in patient.sites for patient in patients)
    if unknown:
        suffix = "; they are spread as one more site" if by == "spread" else ""
        yield f"{_count(unknown, 'patient')} with cases without a site{suffix}."
    names = {site.casefold() for site in members}
    if len(names) < len(members):
        yield "Names of sites that differ only in upper and lower case count as different sites."
    several = sum(len(patient.sites - {""}) > 1 for patient in patients)
    if several:
        yield f"{_count(several, 'patient')} with cases of several sites: counted at the site of most of their cases."
    small = {site: len(found) for site, found in sorted(members.items()) if site and len(found) < SMALL}
    if small:
        listed = ", ".join(f"{site!r} ({count})" for site, count in small.items())
        yield f"Sites with fewer than {SMALL} patients, whose own values are very uncertain: {listed}."


def _single_classes(patients: Sequence[FoldPatient]) -> Iterator[str]:
    classes: dict[str, set[str]] = defaultdict(set)
    for patient in patients:
        if patient.site:
            classes[patient.site] |= patient.classes
    if len(set().union(*classes.values())) > 1:
        for site, names in sorted(classes.items()):
            if len(names) == 1 and names != {"event"}:
                yield f"Site {site!r} has only class {min(names)!r}: no AUROC or C-index can be computed for it alone."


def _confounding(items: Sequence[Mapping[str, Any]], patients: Sequence[FoldPatient], task: Task) -> list[str]:
    known = [patient for patient in patients if patient.site]
    sites = [patient.site for patient in known]
    notes = []
    if task.kind == "multilabel":
        for name in task.class_names:
            found = [
                (p.site, name if name in p.classes else f"no {name}") for p in known if {name, f"no {name}"} & p.classes
            ]
            notes.append(describe_class_by_site([s for s, _ in found], [c for _, c in found], name))
    elif task.kind != "regression":
        notes.append(describe_class_by_site(sites, [patient.label for patient in known]))
    if task.kind == "regression" or task.has_times:
        values = _values(items, task)
        name = "time" if task.has_times else "label"
        notes.append(describe_value_by_site(sites, [float(np.mean(values[p.name])) for p in known], name))
    return [note for note in notes if note]


def _contradictions(items: Sequence[Mapping[str, Any]], patients: Sequence[FoldPatient], task: Task) -> Iterator[str]:
    is_value = task.kind == "regression" or task.has_times
    if is_value:
        values = _values(items, task)
        count = sum(len(set(found)) > 1 for found in values.values())
    elif task.kind == "multilabel":
        count = sum(any({name, f"no {name}"} <= p.classes for name in task.class_names) for p in patients)
    else:
        count = sum(len(patient.classes) > 1 for patient in patients)
    if count:
        what = "times" if task.has_times else "values" if is_value else "labels"
        how = "" if is_value else "they are stratified by the rarest one; "
        thing = "time" if task.has_times else "value" if is_value else "label"
        yield (
            f"{_count(count, 'patient')} with different {what} of their cases: {how}check that the {thing} is one of "
            "the case, not of the patient."
        )


def _values(items: Sequence[Mapping[str, Any]], task: Task) -> dict[str, list[float]]:
    """Return the values, or times, of the cases of each patient."""
    values: dict[str, list[float]] = defaultdict(list)
    for item, value in zip(items, task.truth(items).reshape(len(items), -1)[:, 0], strict=True):
        values[str(item[PATIENT])].append(float(value))
    return values


def _copies(items: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Say how many bag files of different patients are the same; most are told apart by size and a block."""
    files: dict[tuple[int, bytes], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for item in items:
        image = item.get("image")
        paths = image if isinstance(image, (list, tuple)) else [image]
        for path in (path for path in paths if isinstance(path, (str, os.PathLike))):
            with suppress(OSError, ValueError):  # a file that can't be read is reported when it is loaded
                files[_middle(path)][str(resolve_path(path))].add(str(item[PATIENT]))
    count = sum(map(_count_copies, files.values()))
    if count:
        yield (
            f"{_count(count, 'bag file')} used for several patients, under one name or as copies: the test part can "
            "contain bags of the training part."
        )


def _middle(path: str | os.PathLike[str]) -> tuple[int, bytes]:
    """Return the size of a file and a block in its middle, where bags that differ rarely agree."""
    if is_remote(path):
        source = ObjectPath(path)
        return (0, b"") if source.is_dir() else (source.stat().st_size, source.checksum().encode())
    if os.path.isdir(path):
        return 0, b""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(size // 2)
        return size, file.read(BLOCK)


def _count_copies(files: Mapping[str, set[str]]) -> int:
    """Return how many contents, among files of one size and block, belong to several patients."""
    if len(files) == 1:
        return sum(len(patients) > 1 for patients in files.values())
    owners: dict[str, set[str]] = defaultdict(set)
    for path, patients in files.items():
        with suppress(OSError):
            owners[content_identity(path)] |= patients
    return sum(len(patients) > 1 for patients in owners.values())


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
