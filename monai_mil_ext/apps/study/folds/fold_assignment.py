"""Assignment of patients to folds and to validation parts, which keeps what is known from before."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .fold_patients import FoldPatient

__all__ = ["Draw", "assign_folds", "draw_validation"]


@dataclass(frozen=True)
class Draw:
    """Source of random numbers that depend on a seed and on names only, not on the order of calls.

    Args:
        seed: seed.
        repeat: repeat of the folds.
        fold: fold within the repeat; -1 for all.

    Example:
        >>> Draw(0, 0)("p1") == Draw(0, 0)("p1"), 0 <= Draw(0, 0)("p1") < 1
        (True, True)
    """

    seed: int
    repeat: int
    fold: int = -1

    def __call__(self, *names: object) -> float:
        """Return a number in [0, 1)."""
        text = "\0".join(map(str, (self.seed, self.repeat, self.fold, *names)))
        return int(hashlib.sha256(text.encode()).hexdigest()[:13], 16) / 16**13


def assign_folds(
    patients: Sequence[FoldPatient],
    num_folds: int,
    draw: Draw,
    spread_sites: bool = False,
    known: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Return the fold of each patient.

    Each patient goes to the fold with the fewest patients of the same stratum; of several such folds to the one with
    the fewest of the same class, then the fewest patients, then the fewest cases. Without ``known`` folds, the patients
    of each stratum, of each class and of all differ by at most one between folds.

    Args:
        patients: the patients.
        num_folds: number of folds.
        draw: random numbers.
        spread_sites: whether a stratum is a class at a site, or a class.
        known: folds of patients, which are kept.
    """
    folds = dict(known or {})
    counts: list[Counter[tuple[str, ...]]] = [Counter() for _ in range(num_folds)]
    sizes = [0] * num_folds

    def add(patient: FoldPatient, fold: int) -> None:
        stratum = _stratum(patient, spread_sites)
        counts[fold].update(stratum[:i] for i in range(len(stratum) + 1))
        sizes[fold] += len(patient.cases)

    for patient in patients:
        if patient.name in folds:
            add(patient, folds[patient.name])
    new = [patient for patient in patients if patient.name not in folds]
    for patient in sorted(new, key=lambda p: (_stratum(p, spread_sites), -len(p.cases), draw(p.name))):
        stratum = _stratum(patient, spread_sites)
        keys = [
            ([counts[fold][stratum[:i]] for i in range(len(stratum), -1, -1)], sizes[fold], draw(patient.name, fold))
            for fold in range(num_folds)
        ]
        folds[patient.name] = min(range(num_folds), key=lambda fold: keys[fold])
        add(patient, folds[patient.name])
    return {patient.name: folds[patient.name] for patient in patients}


def draw_validation(
    patients: Sequence[FoldPatient], fraction: float, draw: Draw, known: Mapping[str, str] | None = None
) -> set[str]:
    """Draw the patients of a validation part, a fraction of each class, evenly from sites and bins.

    A class with two or more patients has one in either part.

    Args:
        patients: the patients who are not in the test part.
        fraction: fraction to draw.
        draw: random numbers.
        known: part (``"train"`` or ``"val"``) of patients, which is kept.
    """
    parts = dict(known or {})
    chosen = {patient.name for patient in patients if parts.get(patient.name) == "val"}
    by_label: dict[str, list[FoldPatient]] = defaultdict(list)
    for patient in patients:
        by_label[patient.label].append(patient)
    for label, members in sorted(by_label.items()):
        count = len(members)
        quota = min(max(round(count * fraction), 1), count - 1) if fraction else 0
        new = [patient for patient in members if patient.name not in parts]
        missing = min(max(quota - sum(patient.name in chosen for patient in members), 0), len(new))
        new.sort(key=lambda p: (p.detail, p.site, draw("validation", p.name)))
        start = draw("validation start", label)
        chosen |= {new[int((i + start) * len(new) / missing)].name for i in range(missing)}
    return chosen


def _stratum(patient: FoldPatient, spread_sites: bool) -> tuple[str, ...]:
    return (patient.label, patient.site, patient.detail) if spread_sites else (patient.label, patient.detail)
