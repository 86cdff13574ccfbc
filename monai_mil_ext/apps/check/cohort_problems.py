"""Problems of a cohort as a whole, such as a file in two cases, a patient in two parts, or a label by site."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_mil_ext.data import CohortChecks
from monai_mil_ext.data.cohorts.columns import PARTS
from monai_mil_ext.data.cohorts.mixtures import confounding, merge_close, mixture_issues
from monai_mil_ext.utils.remote import ObjectPath, as_path

from .case_labels import CohortLabels
from .check_settings import CASE, CheckedCase, CheckSettings, Problem

__all__ = ["find_problems"]

BLOCK = 65_536  # bytes that are compared at the start, in the middle and at the end of files of one size
MANY = 4.0  # ratio to the median from which a number of slices is said to differ much
MIN_PATIENTS = 3  # of a class, one for each part
TOLERANCE = 0.1  # relative difference of spacings that count as the same
SHOWN = 5  # cases that a message names
MISMATCH = "--allow_mismatch true"


def find_problems(
    cases: Sequence[CheckedCase], labels: CohortLabels, settings: CheckSettings
) -> tuple[list[Problem], list[Problem]]:
    """Return the problems and the notes of a cohort whose facts and labels have been read."""
    told_by_study = [*_repeated_files(cases), *_parts(cases), *labels.problems]
    problems = [*_repeated_ids(cases), *_of_labels(told_by_study)]
    notes: list[Problem] = []
    for found in (_contradictions(cases, labels, settings), _small_classes(cases, labels, settings)):
        problems += _of_labels(found[0])
        notes += _of_labels(found[1])
    mixed = _mixtures(cases, labels, settings)
    return [*problems, *mixed[0]], [*notes, *mixed[1], *_confounded(cases, labels), *_counts_of_slices(cases)]


def _of_labels(problems: Sequence[Problem]) -> list[Problem]:
    """Return problems of labels by patient and split; those of a case stay problems of the case."""
    return [problem if problem.case else problem._replace(topic="labels") for problem in problems]


def _repeated_ids(cases: Sequence[CheckedCase]) -> Iterator[Problem]:
    for case, same in _groups(cases, lambda case: case.item.get(CASE) or None).items():  # refused names are empty
        if len(same) > 1:
            more = f" and {len(same) - SHOWN} more" if len(same) > SHOWN else ""
            places = ", ".join(one.place for one in same[:SHOWN])
            yield Problem(f"`case_id` must be unique, got {case!r} {len(same)} times: {places}{more}")


def _repeated_files(cases: Sequence[CheckedCase]) -> Iterator[Problem]:
    """Yield a problem for each file that several cases have, under one name or as copies."""
    for same in _groups(cases, lambda case: tuple(sorted(case.paths)) + _choice(case)).values():
        if len({case.name for case in same}) > 1 and same[0].paths:  # of one name, the name is the problem
            yield Problem(f"`image` must be another file in each case, got one file in {_named(same)}")
    seen = {tuple(sorted(case.paths)) + _choice(case): case for case in cases if case.paths}
    for by_size in _groups(list(seen.values()), _size).values():
        if len(by_size) < 2:
            continue
        for same in _groups(by_size, _content).values():
            if len(same) > 1:
                yield Problem(f"`image` must be another scan in each case, got copies of one file in {_named(same)}")


def _choice(case: CheckedCase) -> tuple[str, ...]:
    """Return what a case takes from a file that several may share: a series, a stack, a slide, or rows."""
    return tuple(str(case.item.get(key, "")) for key in ("series", "stack", "slide", "start", "stop"))


def _size(case: CheckedCase) -> tuple[Any, ...] | None:
    try:
        return (*(file.stat().st_size for file in _files(case)), *_choice(case)) or None
    except OSError:
        return None


def _content(case: CheckedCase) -> str | None:
    """Return a hash of blocks of the files, of which there are up to three."""
    total = hashlib.sha256()
    files = _files(case)
    for path in (files[0], files[len(files) // 2], files[-1]) if files else ():
        if isinstance(path, ObjectPath):
            total.update(path.checksum().encode())
            continue
        size = path.stat().st_size
        with path.open("rb") as file:
            for start in (0, size // 2, max(0, size - BLOCK)):
                file.seek(start)
                total.update(file.read(BLOCK))
    return total.hexdigest() if files else None


def _files(case: CheckedCase) -> list[Path]:
    found = []
    for path in map(as_path, case.paths):
        found += _files_below(path) if path.is_dir() else [path]
    return found


def _files_below(folder: Path) -> list[Path]:
    if isinstance(folder, ObjectPath):
        return list(folder.sizes())
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _parts(cases: Sequence[CheckedCase]) -> Iterator[Problem]:
    """Yield the problems of the column ``split``."""
    for case in cases:
        if _part(case) is None:
            yield Problem(f"`split` must be train, val, test or empty, got {case.item['split']!r}", case.name)
    used = {part for case in cases if (part := _part(case))}
    if used and not {"train", "test"} <= used:
        yield Problem(f"`split` must have cases in train and test, got only {', '.join(sorted(used))}")
    for patient, same in _groups(cases, lambda case: case.patient).items():
        found = sorted({part for case in same if (part := _part(case))})
        if len(found) > 1:
            yield Problem(f"a patient must be in one split, got {patient!r} in {' and '.join(found)}: {_named(same)}")


def _part(case: CheckedCase) -> str | None:
    """Return the part of a case, empty for one without; None if it has another name."""
    return PARTS.get(str(case.item.get("split") or "").lower())


def _contradictions(
    cases: Sequence[CheckedCase], labels: CohortLabels, settings: CheckSettings
) -> tuple[list[Problem], list[Problem]]:
    """Return patients whose cases have several labels: problems if all bags of a patient are one, otherwise notes."""
    found = []
    for label, values in labels.classes.items():
        by_patient: dict[str, set[str]] = defaultdict(set)
        for case, value in zip(cases, values, strict=True):
            if value is not None:
                by_patient[case.patient].add(value)
        several = {patient: sorted(names) for patient, names in by_patient.items() if len(names) > 1}
        listed = "; ".join(f"{patient!r} {' and '.join(names)}" for patient, names in list(several.items())[:SHOWN])
        more = f" and {len(several) - SHOWN} more" if len(several) > SHOWN else ""
        if several and settings.level == "patient":
            found.append(Problem(f"`{label}` must be the same in all cases of a patient, got {listed}{more}"))
        elif several:
            count = f"{len(several)} patient{'s' * (len(several) > 1)}"
            found.append(Problem(f"{count} with several values of `{label}`: {listed}{more}"))
    return (found, []) if settings.level == "patient" else ([], found)


def _small_classes(
    cases: Sequence[CheckedCase], labels: CohortLabels, settings: CheckSettings
) -> tuple[list[Problem], list[Problem]]:
    """Return classes of too few patients for the parts of a fold, or for all folds."""
    problems, notes = [], []
    for label, values in labels.classes.items():
        patients: dict[str, set[str]] = {name: set() for name in labels.class_names if label == "label"}
        for case, value in zip(cases, values, strict=True):
            if value is not None:
                patients.setdefault(value, set()).add(case.patient)
        for name, members in patients.items():
            count = f"{len(members)} patient{'s' * (len(members) != 1)}"
            if len(members) < MIN_PATIENTS and settings.num_folds > 0:
                rule = "a class must have 3 patients or more, for training, validation and test"
                problems.append(Problem(f"{rule}, got {count} of {label} {name!r}"))
            elif len(members) < settings.num_folds:
                text = f"{count} of {label} {name!r} for {settings.num_folds} folds: some have none to test"
                notes.append(Problem(text, option=f"--num_folds {len(members)}"))
    return problems, notes


def _mixtures(
    cases: Sequence[CheckedCase], labels: CohortLabels, settings: CheckSettings
) -> tuple[list[Problem], list[Problem]]:
    """Return properties of which the files have several values, alone or together with the label."""
    known = [i for i, case in enumerate(cases) if case.facts.get("kind")]
    classes = _of(labels, known)
    facts = [cases[i].facts for i in known]
    is_error = not settings.allow_mismatch
    problems, notes = [], []
    for name, key, strict in (("modality", "modality", is_error), ("plane", "plane", False), ("kind", "kind", True)):
        found = mixture_issues(name, [fact.get(key) for fact in facts], classes, strict)
        problems += [Problem(str(issue), option=MISMATCH if key == "modality" else "") for issue in found[0]]
        notes += [Problem(str(issue)) for issue in found[1]]
    bags = [i for i in known if cases[i].facts.get("summary") is not None]
    checks = CohortChecks(allow_mismatch=settings.allow_mismatch)
    errors, more = checks.compare([cases[i].facts["summary"] for i in bags], [{} for _ in bags])
    problems += [Problem(str(issue), option=MISMATCH if issue.location == "encoder" else "") for issue in errors]
    notes += [Problem(str(issue)) for issue in more]
    return problems, notes


def _confounded(cases: Sequence[CheckedCase], labels: CohortLabels) -> Iterator[Problem]:
    """Yield properties of site, scanner or file from which the label could be told, in files that could be read."""
    known = [i for i, case in enumerate(cases) if case.facts.get("kind")]
    cases, by_label = [cases[i] for i in known], _of(labels, known)
    spacings = [case.facts.get("spacing") for case in cases]
    properties: dict[str, Sequence[str | None]] = {
        "site": [str(case.item["site"]) if case.item.get("site") else None for case in cases],
        "encoder": [case.facts.get("encoder") for case in cases],
        "container": [case.facts.get("container") for case in cases],
        "pixel size": _merged([spacing and min(spacing) for spacing in spacings], "mm"),
        "slice distance": _merged([spacing and max(spacing) for spacing in spacings], "mm"),
        "resolution": _merged([case.facts.get("mpp") for case in cases], "mpp"),
        "split": [case.item.get("split") or None for case in cases],
    }
    for name, values in properties.items():
        for label, classes in by_label.items():
            text = confounding(name, values, classes, label) if any(values) else ""
            if text:
                yield Problem(text, topic="labels" if name in ("site", "split") else "cases")


def _counts_of_slices(cases: Sequence[CheckedCase]) -> Iterator[Problem]:
    """Yield scans, or bags, with far fewer or more instances than most."""
    counts = [(case, case.facts["instances"]) for case in cases if case.facts.get("instances")]
    if len(counts) < MIN_PATIENTS:
        return
    median = float(np.median([count for _, count in counts]))
    for word, odd in (
        ("less than a quarter of", [case for case, count in counts if count * MANY < median]),
        ("more than four times", [case for case, count in counts if count > median * MANY]),
    ):
        if odd:
            numbers = sorted({case.facts["instances"] for case in odd})
            span = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
            yield Problem(f"{span} slices or instances, {word} the median of {median:g}, in {_named(odd)}")


def _merged(values: Sequence[float | None], unit: str) -> list[str | None]:
    """Return numbers as text, close ones as one."""
    return merge_close(values, [f"{value:g} {unit}" if value else None for value in values], TOLERANCE)


def _of(labels: CohortLabels, index: Sequence[int]) -> Mapping[str, Sequence[str | None]]:
    return {label: [values[i] for i in index] for label, values in labels.classes.items()}


def _groups(cases: Sequence[CheckedCase], key: Callable[[CheckedCase], Any]) -> dict[Any, list[CheckedCase]]:
    """Group cases by a key; those of which it is None are left out."""
    groups: dict[Any, list[CheckedCase]] = {}
    for case in cases:
        value = key(case)
        if value is not None:
            groups.setdefault(value, []).append(case)
    return groups


def _named(cases: Sequence[CheckedCase]) -> str:
    more = f" and {len(cases) - SHOWN} more" if len(cases) > SHOWN else ""
    return ", ".join(f"{case.name!r}" for case in cases[:SHOWN]) + more
