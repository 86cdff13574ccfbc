"""Splits of a cohort into training, validation and test, by patient, frozen in a file."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from torch import Tensor

from monai_mil_ext.utils import BagKeys, check_choice, write_json

from .bag_file import read_bag
from .fingerprints import fingerprint

__all__ = ["CohortSplits", "split_cohort"]

PARTS = ("train", "val", "test")
Part = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class CohortSplits:
    """Which bags are for training, validation and test in each fold; no patient is in two of them.

    Args:
        folds: case ids of ``train``, ``val`` and ``test``, fold by fold; repeat ``r`` of ``K`` folds starts at ``r K``.
        patients: whose each case is.
        seed: the splits were made with.

    Raises:
        ValueError: when a patient is in two parts of a fold, or a case has no patient: all are named.
    """

    folds: Sequence[Part]
    patients: Mapping[str, str]
    seed: int = 0

    def __post_init__(self) -> None:
        faults = [fault for i, fold in enumerate(self.folds) for fault in self._faults(i, fold)]
        if faults:
            raise ValueError("\n  ".join([f"splits must keep each patient in one part, got {len(faults)}:", *faults]))

    def __len__(self) -> int:
        """Number of folds, those of all repeats."""
        return len(self.folds)

    def select(self, items: Sequence[Mapping[str, Any]], fold: int, part: str) -> list[dict[str, Any]]:
        """Give the items of one part of one fold, in the order of the items.

        Raises:
            ValueError: when there is no such fold or part, or the items are not the cases and patients of the splits.
        """
        check_choice("part", part, PARTS)
        if not 0 <= fold < len(self):
            raise ValueError(f"`fold` must be from 0 to {len(self) - 1}, got {fold}.")
        self._check_items(items)
        wanted = set(self.folds[fold][part])
        return [dict(item) for item in items if item[str(BagKeys.CASE_ID)] in wanted]

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the splits as JSON, as a whole or not at all."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> CohortSplits:
        """Read what :py:meth:`write` wrote, and check it again.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when it holds no splits, or such as leak.
        """
        file = Path(path)
        if not file.is_file():
            raise FileNotFoundError(f"`path` must be a file of splits that exists, got {file.name!r}.")
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            folds = [{part: [str(case) for case in fold[part]] for part in PARTS} for fold in content["folds"]]
            patients, seed = dict(content["patients"]), int(content["seed"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"`path` must be a file that CohortSplits wrote, got {file.name!r}.") from None
        return cls(folds, patients, seed)

    def write_fold(self, path: str | os.PathLike[str], fold: int) -> None:
        """Write down, beside the weights that are trained with it, which fold it was and what is in its parts."""
        write_json(path, {"fold": fold, **self.folds[fold]})

    def check_fold(self, path: str | os.PathLike[str], fold: int) -> None:
        """Refuse to evaluate weights on another fold, or another split, than :py:meth:`write_fold` wrote down.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when it is none of a fold, or of another one: it says how many bags of the test were known.
        """
        file = Path(path)
        if not file.is_file():
            raise FileNotFoundError(f"`path` must be a file that training wrote, got no {file.name!r}.")
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            trained, parts = int(content["fold"]), {part: set(content[part]) for part in PARTS}
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"`path` must be a file that CohortSplits wrote, got {file.name!r}.") from None
        asked = {part: set(self.folds[fold][part]) for part in PARTS}
        if asked != parts:
            known = len(asked["test"] & (parts["train"] | parts["val"]))
            raise ValueError(
                f"`fold` must be the one that the weights were trained for, {trained} with the same options by "
                f"{file.name!r}, got {fold}: {known} of its {len(asked['test'])} bags to test trained or chose them."
            )

    def check_content(self, items: Sequence[Mapping[str, Any]], key: str = "image") -> None:
        """Read the features of all bags and refuse splits with the same bag, under two names, in two parts.

        Raises:
            ValueError: when there is such a bag; the cases are named.
        """
        first: dict[str, str] = {}
        twins = []
        for item in items:
            paths = item[key] if isinstance(item[key], (list, tuple)) else [item[key]]
            for path in paths:
                case = str(item[str(BagKeys.CASE_ID)])
                other = first.setdefault(fingerprint(read_bag(path)["features"]), case)
                if other != case:
                    twins.append((other, case))
        faults = [
            f"fold {i}: {one!r} in {place[one]} is {two!r} in {place[two]}"
            for i, place in enumerate(map(_places, self.folds))
            for one, two in twins
            if place[one] != place[two]
        ]
        if faults:
            raise ValueError("\n  ".join([f"splits must not share bags, got {len(faults)}:", *faults]))

    def _faults(self, number: int, fold: Part) -> Iterator[str]:
        parts: dict[str, dict[str, list[str]]] = {}
        for part, cases in fold.items():
            for case in cases:
                if case not in self.patients:
                    yield f"fold {number}: {case!r} without a patient"
                parts.setdefault(self.patients.get(case, case), {}).setdefault(part, []).append(case)
        for patient, cases_of in parts.items():
            if len(cases_of) > 1:
                yield f"fold {number}: patient {patient!r} in " + " and ".join(f"{p} {c}" for p, c in cases_of.items())

    def _check_items(self, items: Sequence[Mapping[str, Any]]) -> None:
        patients = _patients(items)
        known = dict(self.patients)
        faults = {
            "not in the splits": sorted(set(patients) - set(known)),
            "missing": sorted(set(known) - set(patients)),
            "of another patient": sorted(c for c in set(known) & set(patients) if known[c] != patients[c]),
        }
        if any(faults.values()):
            got = "; ".join(f"{what}: {', '.join(map(repr, cases))}" for what, cases in faults.items() if cases)
            raise ValueError(f"`items` must be the cases that were split, got cases {got}.")


def split_cohort(
    items: Sequence[Mapping[str, Any]],
    num_folds: int = 5,
    val_fraction: float = 0.2,
    repeats: int = 1,
    seed: int = 0,
    stratify: str | None = "label",
) -> CohortSplits:
    """Split items by patient into ``num_folds`` folds, ``repeats`` times, the same for the same seed.

    Each fold is the test part once; of the rest, 1 in ``round(1 / val_fraction)`` parts is for validation. Parts have
    about the same share of each class, as scikit-learn's ``StratifiedGroupKFold`` makes them.

    Args:
        items: with ``case_id`` and ``patient``.
        num_folds: at least 2.
        val_fraction: share of what is not tested that is held out of training, at most 0.5; 0 for none.
        repeats: how often, each time with another seed.
        seed: of the first repeat; the others have the numbers after it.
        stratify: whose shares are kept: ``"label"`` (a class, or several labels, each combination a class), ``"event"``
            for survival, or None, such as for numbers to regress on.

    Raises:
        ValueError: when a class has fewer patients than parts, or is not in every part; the class is named.

    Example:
        >>> items = [{"case_id": f"s{i}", "patient": f"p{i // 2}", "label": i // 2 % 2} for i in range(24)]
        >>> splits = split_cohort(items, num_folds=3)
        >>> [len(splits.folds[0][part]) for part in ("train", "val", "test")]
        [12, 4, 8]
    """
    inner = round(1 / val_fraction) if val_fraction else 0
    if num_folds < 2 or repeats < 1 or not (val_fraction == 0 or 0 < val_fraction <= 0.5):
        got = f"{num_folds}, {repeats}, {val_fraction}"
        raise ValueError(f"`num_folds` must be 2, `repeats` 1 at least, `val_fraction` from 0 to 0.5, got {got}.")
    patients = _patients(items)
    cases, groups = np.array(list(patients)), np.array(list(patients.values()))
    classes = None if stratify is None else np.array([_class_of(item, stratify) for item in items])
    _check_classes(classes, groups, num_folds, inner)
    folds: list[Part] = []
    for repeat in range(repeats):
        for rest, test in _k_fold(num_folds, seed + repeat, classes, groups):
            train, val = rest, rest[:0]
            if inner:
                train, val = _hold_out(rest, inner, seed + repeat, classes, groups)
            parts = dict(zip(PARTS, (train, val, test), strict=True))
            _check_parts(parts, classes, len(folds))
            folds.append({part: cases[rows].tolist() for part, rows in parts.items()})
    return CohortSplits(folds, patients, seed)


def _k_fold(
    num_folds: int, seed: int, classes: NDArray[Any] | None, groups: NDArray[Any]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    kind = GroupKFold if classes is None else StratifiedGroupKFold
    yield from kind(num_folds, shuffle=True, random_state=seed).split(groups, classes, groups)


def _hold_out(
    rows: NDArray[np.int64], inner: int, seed: int, classes: NDArray[Any] | None, groups: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Part rows in two: the first of the inner folds that has, and leaves, every class."""
    names = np.zeros(len(groups)) if classes is None else classes
    most = max(len(set(groups[rows][names[rows] == name])) for name in set(names[rows]))
    inner = min(inner, most)  # scikit-learn takes no more folds than the largest class has patients
    with warnings.catch_warnings():  # scikit-learn warns of rare classes, for which some folds have none
        warnings.simplefilter("ignore", UserWarning)
        folds = list(_k_fold(inner, seed, None if classes is None else classes[rows], groups[rows]))
    least = [min(len(set(names[rows[part]])) for part in fold) for fold in folds]
    kept, held = folds[int(np.argmax(least))]
    return rows[kept], rows[held]


def _patients(items: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    patients: dict[str, str] = {}
    for item in items:
        case = str(item[str(BagKeys.CASE_ID)])
        if case in patients:
            raise ValueError(f"`case_id` must be different for every item, got {case!r} more than once.")
        patients[case] = str(item[str(BagKeys.PATIENT)])
    return patients


def _class_of(item: Mapping[str, Any], key: str) -> str:
    if key not in item:
        raise ValueError(f"`stratify` must be a key of every item, got {key!r} for {item['case_id']!r}.")
    value = item[key]
    return str(value.tolist() if isinstance(value, Tensor) else value)


def _check_classes(classes: NDArray[Any] | None, groups: NDArray[Any], num_folds: int, inner: int) -> None:
    """Every class needs a patient in each test part, and of the others one to train with and one to validate."""
    names = np.zeros(len(groups)) if classes is None else classes
    for name in np.unique(names):
        count = len(np.unique(groups[names == name]))
        left = count - -(-count // num_folds)
        if count < num_folds or left < (2 if inner else 1):
            of = "" if classes is None else f" of class {name}"
            parts = f"{num_folds} folds" + (" and validation" if inner else "")
            raise ValueError(f"`items` must have enough patients{of} for {parts}, got {count}: take fewer folds.")


def _check_parts(parts: Mapping[str, NDArray[np.int64]], classes: NDArray[Any] | None, fold: int) -> None:
    for part, rows in parts.items():
        missing = [] if classes is None or not len(rows) else sorted(set(classes) - set(classes[rows]))
        if missing:
            raise ValueError(
                f"every part must have every class, got none of class {', '.join(missing)} in {part} of fold {fold}: "
                "take fewer folds or another seed."
            )


def _places(fold: Part) -> dict[str, str]:
    return {case: part for part, cases in fold.items() for case in cases}
