"""Splits of a cohort by patient into training, validation and test parts, saved in a file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from monai_mil_ext.data.bags.bag_file import read_bag
from monai_mil_ext.data.features.fingerprints import fingerprint
from monai_mil_ext.utils import BagKeys, check_choice, check_local, load_json, optional_dependency, write_json
from monai_mil_ext.utils.remote import as_path, is_remote, isfile

__all__ = ["CohortSplits", "split_cohort"]

model_selection = optional_dependency("", "sklearn.model_selection")

PARTS = ("train", "val", "test")
Part = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class CohortSplits:
    """Folds of a cohort with training, validation and test parts; no patient is in two parts of a fold.

    Args:
        folds: case IDs of ``train``, ``val`` and ``test`` per fold; repeat ``r`` of ``K`` folds starts at ``r K``.
        patients: patient of each case.
        seed: seed of the splits.

    Raises:
        ValueError: when a patient is in two parts of a fold, or a case has no patient; all are listed.
    """

    folds: Sequence[Part]
    patients: Mapping[str, str]
    seed: int = 0

    def __post_init__(self) -> None:
        errors = [error for i, fold in enumerate(self.folds) for error in self._fold_errors(i, fold)]
        if errors:
            raise ValueError("\n  ".join([f"splits must keep each patient in one part, got {len(errors)}:", *errors]))

    def __len__(self) -> int:
        """Return the number of folds of all repeats."""
        return len(self.folds)

    @property
    def repeats(self) -> list[int]:
        """Repeat of each fold, from 0: one begins with each fold that tests a case which its repeat has tested before.

        Example:
            >>> parts = [{"train": ["b"], "val": [], "test": ["a"]}, {"train": ["a"], "val": [], "test": ["b"]}]
            >>> CohortSplits(parts * 2, {"a": "p", "b": "q"}).repeats
            [0, 0, 1, 1]
        """
        numbers: list[int] = []
        tested: set[str] = set()
        for fold in self.folds:
            test = set(fold["test"])
            is_new = not tested.isdisjoint(test)
            numbers.append(numbers[-1] + is_new if numbers else 0)
            tested = test if is_new else tested | test
        return numbers

    def select(self, items: Sequence[Mapping[str, Any]], fold: int, part: str) -> list[dict[str, Any]]:
        """Return the items of one part of one fold, in the order of the items.

        Raises:
            ValueError: when there is no such fold or part, or cases and patients of the items differ from the splits.
        """
        check_choice("part", part, PARTS)
        if not 0 <= fold < len(self):
            raise ValueError(f"`fold` must be from 0 to {len(self) - 1}, got {fold}.")
        self._check_items(items)
        wanted = set(self.folds[fold][part])
        return [dict(item) for item in items if item[str(BagKeys.CASE_ID)] in wanted]

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the splits as JSON, atomically."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> CohortSplits:
        """Read splits that :py:meth:`write` saved, and check them again.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when the file contains no splits, or splits with a patient in two parts.
        """
        file = as_path(path)
        if not is_remote(file):
            check_local(path=file)
        if not isfile(file):
            raise FileNotFoundError(f"`path` must be a file of splits that exists, got {file.name!r}.")
        try:
            content = load_json(file)
            folds = [{part: [str(case) for case in fold[part]] for part in PARTS} for fold in content["folds"]]
            patients, seed = dict(content["patients"]), int(content["seed"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"`path` must be a file that CohortSplits wrote, got {file.name!r}.") from None
        return cls(folds, patients, seed)

    def write_fold(self, path: str | os.PathLike[str], fold: int) -> None:
        """Write index and parts of a fold as JSON, to be kept with the weights that are trained on it."""
        write_json(path, {"fold": fold, **self.folds[fold]})

    def check_fold(self, path: str | os.PathLike[str], fold: int) -> None:
        """Check that a fold is the one that :py:meth:`write_fold` saved when the weights were trained.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when the file contains no fold or another one; the message counts the test bags that leak.
        """
        file = as_path(path)
        if not is_remote(file):
            check_local(path=file)
        if not isfile(file):
            raise FileNotFoundError(f"`path` must be an existing file saved by training, got {file.name!r}.")
        try:
            content = load_json(file)
            trained, parts = int(content["fold"]), {part: set(content[part]) for part in PARTS}
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"`path` must be a file that CohortSplits wrote, got {file.name!r}.") from None
        requested = {part: set(self.folds[fold][part]) for part in PARTS}
        if requested != parts:
            leaked = len(requested["test"] & (parts["train"] | parts["val"]))
            raise ValueError(
                f"`fold` must be the one that the weights were trained for, {trained} with the same options by "
                f"{file.name!r}, got {fold}: {leaked} of its {len(requested['test'])} test bags were used in training."
            )

    def check_content(self, items: Sequence[Mapping[str, Any]], key: str = "image") -> None:
        """Check that no two bags with the same features, under different names, are in different parts.

        Raises:
            ValueError: when there are such bags; the cases are listed.
        """
        first: dict[str, str] = {}
        duplicates = []
        for item in items:
            paths = item[key] if isinstance(item[key], (list, tuple)) else [item[key]]
            for path in paths:
                case = str(item[str(BagKeys.CASE_ID)])
                other = first.setdefault(fingerprint(read_bag(path)["features"]), case)
                if other != case:
                    duplicates.append((other, case))
        errors = [
            f"fold {i}: {case!r} in {part_of[case]} is {copy!r} in {part_of[copy]}"
            for i, part_of in enumerate(map(_part_of_cases, self.folds))
            for case, copy in duplicates
            if part_of[case] != part_of[copy]
        ]
        if errors:
            raise ValueError("\n  ".join([f"splits must not share bags, got {len(errors)}:", *errors]))

    def _fold_errors(self, number: int, fold: Part) -> Iterator[str]:
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
        expected = dict(self.patients)
        errors = {
            "not in the splits": sorted(set(patients) - set(expected)),
            "missing": sorted(set(expected) - set(patients)),
            "of another patient": sorted(c for c in set(expected) & set(patients) if expected[c] != patients[c]),
        }
        if any(errors.values()):
            got = "; ".join(f"{kind}: {', '.join(map(repr, cases))}" for kind, cases in errors.items() if cases)
            raise ValueError(f"`items` must be the cases that were split, got cases {got}.")


def split_cohort(
    items: Sequence[Mapping[str, Any]],
    num_folds: int = 5,
    val_fraction: float = 0.2,
    repeats: int = 1,
    seed: int = 0,
    stratify: str | None = "label",
) -> CohortSplits:
    """Split items by patient into ``num_folds`` folds, ``repeats`` times.

    Each fold is the test part once; of the rest, 1 of ``round(1 / val_fraction)`` parts is for validation. Parts are
    stratified by class with scikit-learn's ``StratifiedGroupKFold``. The splits depend on items and seed only.

    Args:
        items: items with ``case_id`` and ``patient``.
        num_folds: number of folds, at least 2.
        val_fraction: fraction of the patients outside of the test part that is held out for validation, at most 0.5; 0
            for no validation part.
        repeats: number of repeats, each with another seed.
        seed: seed of the first repeat; the others use the integers that follow.
        stratify: key of the classes to stratify by: ``"label"`` (a class, or several labels, each combination of which
            is a class), ``"event"`` for survival, or ``None``, such as for regression.

    Raises:
        ValueError: when a class has fewer patients than there are parts, or is missing in a part; the message names it.

    Example:
        >>> items = [{"case_id": f"s{i}", "patient": f"p{i // 2}", "label": i // 2 % 2} for i in range(24)]
        >>> splits = split_cohort(items, num_folds=3)
        >>> [len(splits.folds[0][part]) for part in ("train", "val", "test")]
        [12, 4, 8]
    """
    inner = round(1 / val_fraction) if val_fraction else 0
    if num_folds < 2 or repeats < 1 or not (val_fraction == 0 or 0 < val_fraction <= 0.5):
        got = f"{num_folds}, {repeats}, {val_fraction}"
        raise ValueError(f"`num_folds` must be from 2, `repeats` from 1, `val_fraction` from 0 to 0.5, got {got}.")
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
    kind = model_selection.GroupKFold if classes is None else model_selection.StratifiedGroupKFold
    yield from kind(num_folds, shuffle=True, random_state=seed).split(groups, classes, groups)


def _hold_out(
    rows: NDArray[np.int64], inner: int, seed: int, classes: NDArray[Any] | None, groups: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split rows in two by the first inner fold with the most classes in both of its parts."""
    names = np.zeros(len(groups)) if classes is None else classes
    most = max(len(set(groups[rows][names[rows] == name])) for name in set(names[rows]))
    inner = min(inner, most)  # scikit-learn takes no more folds than the largest class has patients
    with warnings.catch_warnings():  # scikit-learn warns of classes that are too rare for every fold
        warnings.simplefilter("ignore", UserWarning)
        folds = list(_k_fold(inner, seed, None if classes is None else classes[rows], groups[rows]))
    least = [min(len(set(names[rows[part]])) for part in fold) for fold in folds]
    train, val = folds[int(np.argmax(least))]
    return rows[train], rows[val]


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
    """Check that every class has a patient for each test part, and further ones for the other parts."""
    names = np.zeros(len(groups)) if classes is None else classes
    for name in np.unique(names):
        count = len(np.unique(groups[names == name]))
        left = count - -(-count // num_folds)
        if count < num_folds or left < (2 if inner else 1):
            suffix = "" if classes is None else f" of class {name}"
            parts = f"{num_folds} folds" + (" and validation" if inner else "")
            raise ValueError(f"`items` must have enough patients{suffix} for {parts}, got {count}: use fewer folds.")


def _check_parts(parts: Mapping[str, NDArray[np.int64]], classes: NDArray[Any] | None, fold: int) -> None:
    for part, rows in parts.items():
        missing = [] if classes is None or not len(rows) else sorted(set(classes) - set(classes[rows]))
        if missing:
            raise ValueError(
                f"every part must have every class, got none of class {', '.join(missing)} in {part} of fold {fold}: "
                "use fewer folds or another seed."
            )


def _part_of_cases(fold: Part) -> dict[str, str]:
    return {case: part for part, cases in fold.items() for case in cases}
