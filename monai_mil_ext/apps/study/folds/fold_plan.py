"""Plan of the folds of a study: by patient, leaving out a site, or fixed."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monai_mil_ext.apps.study.tasks import Task
from monai_mil_ext.data import CohortSplits
from monai_mil_ext.utils import check_choice, check_positive

from .fixed_parts import PARTS, Part, column_parts, file_parts, has_column
from .fold_assignment import Draw, assign_folds, draw_validation
from .fold_notes import describe_bias, describe_folds
from .fold_patients import FoldPatient, describe_patients, limit_folds

__all__ = ["FoldPlan"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoldPlan:
    """Plan of the folds of a study. A patient is in one part of a fold only, and tested once in a repeat.

    Patients are stratified by class, for several labels by the rarest one, for survival by whether an event was
    observed, for a regression by quantiles. The folds depend on the seed and the names of the patients, not on the
    order of the items.

    - ``"patient"``: each fold is the test part once. With few patients of a class there are fewer folds.
    - ``"spread"``: the same, stratified by class and site together.
    - ``"site"``: each site is the test part once, so that there are as many folds as sites. A patient with cases of
      several sites belongs to that of most of them. Sites with one class are tested too.
    - Fixed parts are used as they are: of ``split_file``, or of ``split`` of the items. If a validation part is
      missing, it is drawn from the training part.

    Args:
        num_folds: number of folds, at least 2.
        repeats: number of repeats, each with other folds; by site, with other validation parts.
        by: ``"patient"``, ``"site"`` or ``"spread"``.
        val_fraction: fraction of the patients outside of the test part that is held out for validation, at most 0.5; 0
            for no validation part.
        seed: seed of all repeats.
        split_file: file of fixed splits, see :py:func:`monai_mil_ext.data.load_splits`; goes before ``split``.
        on_bad: ``"refuse"``, or ``"skip"`` to leave out cases without a fixed part; they are logged.

    Raises:
        ValueError: if an option is invalid.

    Example:
        >>> items = [{"case_id": f"s{i}", "patient": f"p{i // 2}", "label": i // 2 % 2} for i in range(40)]
        >>> splits = FoldPlan(num_folds=5).split(items, Task("classification", ("benign", "malignant")))
        >>> [len(splits.folds[0][part]) for part in ("train", "val", "test")]
        [24, 8, 8]
    """

    num_folds: int = 5
    repeats: int = 1
    by: str = "patient"
    val_fraction: float = 0.2
    seed: int = 0
    split_file: str | os.PathLike[str] | None = None
    on_bad: str = "refuse"

    def __post_init__(self) -> None:
        check_choice("by", self.by, ("patient", "site", "spread"))
        check_choice("on_bad", self.on_bad, ("refuse", "skip"))
        check_positive(num_folds=self.num_folds, repeats=self.repeats)
        if self.num_folds < 2:
            raise ValueError(f"`num_folds` must be at least 2, got {self.num_folds}.")
        if not 0 <= self.val_fraction <= 0.5:
            raise ValueError(f"`val_fraction` must be from 0 to 0.5, got {self.val_fraction}.")

    def split(self, items: Sequence[Mapping[str, Any]], task: Task) -> CohortSplits:
        """Return the folds of all repeats.

        Raises:
            FileNotFoundError: if there is no ``split_file``.
            ValueError: if there are too few patients or sites, or a training part has one class only; the message says
                what to do.
        """
        return self._split(items, task, None)

    def extend(self, previous: CohortSplits, items: Sequence[Mapping[str, Any]], task: Task) -> CohortSplits:
        """Return the folds of a cohort that has grown or shrunk since ``previous``, changed as little as possible.

        Patients keep their parts, with their new cases. New patients go to the fold with the fewest patients of their
        class, or to that of their site; a new site is a further fold. Further repeats are added, so that a change of
        ``repeats`` keeps the folds before. The number of folds remains as it was. If all test cases of a fold are gone,
        the folds are made anew.

        Args:
            previous: splits by this plan of earlier items.
            items: items of now.
            task: the task.

        Raises:
            ValueError: if ``previous`` has more folds than the plan, or another seed; and as :py:meth:`split`.
        """
        if previous.seed != self.seed:
            raise ValueError(f"`previous` must have the seed {self.seed} of the plan, got {previous.seed}.")
        splits = self._split(items, task, previous)
        if any(not fold["test"] for fold in splits.folds):
            logger.warning("All test cases of a fold are gone: the folds are made anew.")
            return self.split(items, task)
        return splits

    def notes(self, items: Sequence[Mapping[str, Any]], task: Task, splits: CohortSplits | None = None) -> list[str]:
        """Return sentences on what can bias the results: sites, few cases, contradictory labels, copies of bags.

        Args:
            items: the items.
            task: the task.
            splits: splits of the items; those of :py:meth:`split` by default.
        """
        splits = self.split(items, task) if splits is None else splits
        patients = describe_patients(items, task, self.num_folds)
        by = "fixed" if self._is_fixed(items) else self.by
        return [
            *describe_folds(splits, patients, self.num_folds, by),
            *describe_bias(items, patients, task, by),
        ]

    def _is_fixed(self, items: Sequence[Mapping[str, Any]]) -> bool:
        return bool(self.split_file) or has_column(items)

    def _split(self, items: Sequence[Mapping[str, Any]], task: Task, previous: CohortSplits | None) -> CohortSplits:
        patients = describe_patients(items, task, self.num_folds)
        folds = list(
            self._fixed(items, patients, previous) if self._is_fixed(items) else self._drawn(patients, task, previous)
        )
        _check_training(folds, patients, task)
        return CohortSplits(folds, {case: p.name for p in patients for case in p.cases}, self.seed)

    def _fixed(
        self, items: Sequence[Mapping[str, Any]], patients: Sequence[FoldPatient], previous: CohortSplits | None
    ) -> Iterator[Part]:
        if self.by != "patient" or self.repeats > 1:
            got = f"{self.by!r} and {self.repeats}"
            raise ValueError(
                f"`by` must be 'patient' and `repeats` 1 with fixed parts, got {got}: leave out the column `split`, or "
                "these options."
            )
        fixed = file_parts(self.split_file, items, self.on_bad) if self.split_file else column_parts(items, self.on_bad)
        CohortSplits(fixed, {case: p.name for p in patients for case in p.cases})  # refuses a patient in two parts
        known = [_before(_parts_of(patients, fold)) for fold in previous.folds] if previous else []
        for number, fold in enumerate(fixed):
            empty = [part for part in ("train", "test") if not fold[part]]
            if empty:
                raise ValueError(f"the fixed parts must have training and test cases, got no {' and '.join(empty)}.")
            parts = {part: sorted(fold[part]) for part in PARTS}
            if not parts["val"] and self.val_fraction:
                train = set(parts["train"])
                old = known[number] if number < len(known) else {}
                rest = [patient for patient in patients if not train.isdisjoint(patient.cases)]
                val = draw_validation(rest, self.val_fraction, Draw(self.seed, 0, number), old)
                held_out = train & {case for p in rest if p.name in val for case in p.cases}
                parts |= {"train": sorted(train - held_out), "val": sorted(held_out)}
            yield parts

    def _drawn(self, patients: Sequence[FoldPatient], task: Task, previous: CohortSplits | None) -> Iterator[Part]:
        previous = previous if previous and _tests_each_case(previous) else None  # not fixed parts of earlier
        old = [_parts_of(patients, fold) for fold in previous.folds] if previous else []
        numbers = previous.repeats if previous else []
        count = numbers.count(0)
        if self.by != "site" and count > self.num_folds:
            raise ValueError(f"`previous` must have at most the {self.num_folds} folds of the plan, got {count}.")
        if self.by != "site" and not count:
            count = limit_folds(patients, task, self.num_folds)
        for repeat in range(self.repeats):
            draw = Draw(self.seed, repeat)
            known = [parts for parts, number in zip(old, numbers, strict=True) if number == repeat]
            tests = _sites(patients, known) if self.by == "site" else self._tests(patients, count, draw, known)
            for number, test in enumerate(tests):
                rest = [patient for patient in patients if patient.name not in test]
                before = next((p for p in known if any(p.get(name) == "test" for name in test)), {})
                val = draw_validation(rest, self.val_fraction, Draw(self.seed, repeat, number), _before(before))
                yield _fold(patients, test, val)

    def _tests(
        self, patients: Sequence[FoldPatient], count: int, draw: Draw, known: Sequence[Mapping[str, str]]
    ) -> list[set[str]]:
        before = {name: fold for fold, parts in enumerate(known) for name, part in parts.items() if part == "test"}
        folds = assign_folds(patients, count, draw, self.by == "spread", before)
        return [{name for name, number in folds.items() if number == fold} for fold in range(count)]


def _sites(patients: Sequence[FoldPatient], known: Sequence[Mapping[str, str]]) -> list[set[str]]:
    """Return the patients of each site, in the order of the folds before."""
    unknown = sum("" in patient.sites for patient in patients)
    names = {patient.site for patient in patients}
    if unknown or len(names) < 2:
        got = f"{unknown} patients without a site" if unknown else f"{len(names)} site"
        raise ValueError(
            f"`by` must be 'site' only if all cases have a site and there are at least two, got {got}: fill in the "
            "column `site`, or use 'patient' or 'spread'."
        )
    members = {site: {patient.name for patient in patients if patient.site == site} for site in names}

    def order(site: str) -> tuple[int, str]:
        tested = (i for i, parts in enumerate(known) if any(parts.get(name) == "test" for name in members[site]))
        return next(tested, len(known)), site

    return [members[site] for site in sorted(names, key=order)]


def _parts_of(patients: Sequence[FoldPatient], fold: Part) -> dict[str, str]:
    """Return the part of each patient who has a case in a fold: that of the first one."""
    part_of = {case: part for part in PARTS for case in fold[part]}
    first = {p.name: next((part_of[case] for case in p.cases if case in part_of), None) for p in patients}
    return {name: part for name, part in first.items() if part is not None}


def _before(parts: Mapping[str, str]) -> dict[str, str]:
    """Return which patients were in the training and the validation part."""
    return {name: part for name, part in parts.items() if part != "test"}


def _tests_each_case(splits: CohortSplits) -> bool:
    """Return whether splits are those of a cross-validation: each repeat has several folds and tests each case."""
    tested: dict[int, set[str]] = defaultdict(set)
    for fold, repeat in zip(splits.folds, splits.repeats, strict=True):
        tested[repeat].update(fold["test"])
    return len(splits) > len(tested) and all(cases == set(splits.patients) for cases in tested.values())


def _fold(patients: Sequence[FoldPatient], test: set[str], val: set[str]) -> Part:
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    for patient in patients:
        parts["test" if patient.name in test else "val" if patient.name in val else "train"] += patient.cases
    return {part: sorted(cases) for part, cases in parts.items()}


def _check_training(folds: Sequence[Part], patients: Sequence[FoldPatient], task: Task) -> None:
    """Check that each training part has two classes, or an event."""
    if task.kind == "regression":
        return
    of_case = {case: patient for patient in patients for case in patient.cases}
    for number, fold in enumerate(folds):
        found = sorted({name for case in fold["train"] for name in of_case[case].classes})
        enough = "event" in found if task.has_times else len(found) > 1
        if not enough:
            sites = " and ".join(sorted({repr(of_case[case].site) for case in fold["test"]} - {"''"}))
            raise ValueError(
                f"each training part must have {'an event' if task.has_times else 'two classes'}, got "
                f"{' and '.join(found) or 'nothing'} only in fold {number}"
                + (f", whose test part is site {sites}" if sites else "")
                + ": use folds by patient or 'spread', or add cases."
            )
