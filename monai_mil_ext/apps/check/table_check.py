"""Check of a cohort from headers alone, before anything is computed."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from monai_mil_ext.data.cohorts import CohortColumns
from monai_mil_ext.utils import check_choice, write_csv, write_json
from monai_mil_ext.utils.paths import result_path
from monai_mil_ext.utils.remote import as_path

from .case_facts import read_facts
from .case_labels import CohortLabels, read_labels
from .case_sources import NamedCases, read_cases
from .check_settings import CASE, PATIENT, CheckedCase, CheckSettings, Problem
from .check_text import HINT, check_text, problem_lines
from .cohort_problems import find_problems
from .encoding_estimate import EncodingEstimate, EncodingPlan

__all__ = ["TableCheck", "check_items", "check_table"]

TABLE, REPORT = "check.csv", "check.json"
NOT_CHECKED = "the time and the disk of the encoding, and which cases have features, were"
GIVEN = ["label", "time", "event", "site", "split"]
STATED = [
    "container",
    "shape",
    "spacing",
    "plane",
    "modality",
    "levels",
    "mpp",
    "magnification",
    "tiles",
    "encoder",
    "width",
    "instances",
    "files",
    "lowest",
    "highest",
    "encoded",
]


@dataclass
class TableCheck:
    """Result of the check of a cohort.

    Args:
        name: name of the table, or of the kind of the cohort.
        rows: what is known of each case.
        problems: what must be resolved before the cohort can be used.
        notes: what may be intended.
        task: sentence on the task that the labels make.
        counts: number of patients and cases by label, by site and by both.
        estimate: time and disk that encoding will take; None if nothing is to be encoded.
        seconds: time that the check took.
    """

    name: str
    rows: list[dict[str, Any]]
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    task: str = ""
    counts: list[dict[str, Any]] = field(default_factory=list)
    estimate: EncodingEstimate | None = None
    seconds: float = 0.0

    @property
    def status(self) -> int:
        """Exit status: 1 with problems, 0 without."""
        return int(bool(self.problems))

    @property
    def bad_cases(self) -> set[str]:
        """Names of the cases that have a problem."""
        return {problem.case for problem in self.problems if problem.case}

    def study_notes(self) -> list[str]:
        """Return the notes for the report of a study, which tells labels by patient and site of its folds itself."""
        notes = [note for note in self.notes if note.topic != "labels"]
        return [line.strip() for line in problem_lines("note", notes)[1:]]

    def raise_if_problems(self, on_bad: str = "refuse") -> None:
        """Raise one error with all problems that keep a study from its start.

        Args:
            on_bad: ``"refuse"``, or ``"skip"`` if cases that have a problem are left out.

        Raises:
            ValueError: when there are such problems, or no case without one.
        """
        check_choice("on_bad", on_bad, ("refuse", "skip"))
        found = [
            problem
            for problem in self.problems
            if problem.topic != "labels" and (not problem.case or on_bad == "refuse")
        ]
        if found or (self.rows and len(self.bad_cases) == len(self.rows)):
            lines = problem_lines("problem", found if found and on_bad == "skip" else self.problems)
            hint = [HINT] if all(problem.case for problem in found) and on_bad == "refuse" else []
            raise ValueError("\n".join([f"{self.name} must be a valid cohort, got {lines[0]}", *lines[1:], *hint]))

    def text(self, max_rows: int = 40, hint: str = HINT) -> str:
        """Return a table of the cases, the problems, the labels and the estimate, for a terminal."""
        estimate = "" if self.estimate is None else self.estimate.sentence
        head = f"{self.name}: {len(self.rows)} cases of {len({row['patient'] for row in self.rows})} patients"
        head += f", checked in {self.seconds:.1f} s"
        sentences = [self.task, estimate]
        return check_text(head, self.rows, self.problems, self.notes, self.counts, sentences, max_rows, hint)

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write ``check.csv``, a row a case, and ``check.json``, everything."""
        place = result_path(folder, "output_dir")
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        write_csv(place / TABLE, [{key: _cell(value) for key, value in row.items()} for row in self.rows], columns)
        content = {
            "name": self.name,
            "num_cases": len(self.rows),
            "status": self.status,
            "task": self.task,
            "problems": [problem._asdict() for problem in self.problems],
            "notes": [note._asdict() for note in self.notes],
            "counts": self.counts,
            "estimate": None if self.estimate is None else self.estimate._asdict(),
            "cases": self.rows,
        }
        write_json(place / REPORT, content)

    def exit_if_problems(self) -> None:
        """End the program with status 1 if there are problems.

        Raises:
            SystemExit: when there are problems.
        """
        if self.problems:
            raise SystemExit(self.status)


def check_table(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    settings: CheckSettings | None = None,
    columns: CohortColumns | None = None,
    root: str | os.PathLike[str] | None = None,
    encoding: EncodingPlan | str | None = None,
) -> TableCheck:
    """Check a cohort that a table, a JSON list or a folder names, and find all of its problems at once.

    Headers alone are read, and a small sample of the voxels or features for their range. No file that can't be read
    ends the check.

    Args:
        path: table (CSV, TSV, Excel) with the columns ``case_id``, ``patient``, ``image`` (or ``bag``) and, where there
            are any, ``label``, or ``time`` and ``event``, ``site``, ``split``, ``reference``, ``series``, ``stack``,
            ``slide_mpp`` and ``magnification``; JSON ``{"scans": [{...}, ...]}`` with the same keys; a folder; or a
            list with a table of the files and one of their patients.
        settings: what the cohort is and how it is to be used.
        columns: names of the columns, as far as they are not the usual ones; found as those of a study are.
        root: folder of the files, by default that of the table.
        encoding: how the cohort is encoded, or the reason why that is not known, which becomes a note; None, or a plan
            without an encoder, estimates no time.

    Raises:
        FileNotFoundError: when there is no such table or folder.
        ValueError: when it is no table.

    Example:
        >>> import torch
        >>> from monai_mil_ext.data import write_bag
        >>> for i in range(6):
        ...     write_bag(f"b{i}.h5", {"features": torch.rand(5, 8)})
        >>> rows = [{"case_id": f"b{i}", "patient": f"p{i}", "image": f"b{i}.h5", "label": i % 2} for i in range(6)]
        >>> write_csv("cohort.csv", [*rows, {"case_id": "c", "patient": "q", "image": "lost.h5", "label": 1}])
        >>> check = check_table("cohort.csv", CheckSettings("bags", num_folds=3))
        >>> check.status, [problem.message for problem in check.problems]
        (1, ['`image` must be the path or the name of a file below `root`, got none'])
    """
    settings = settings or CheckSettings()
    start = time.perf_counter()
    paths = [as_path(part) for part in ([path] if isinstance(path, (str, os.PathLike)) else path)]
    plan = None if isinstance(encoding, str) or encoding is None or encoding.encoder is None else encoding
    reason = encoding if isinstance(encoding, str) else ""
    prefer = "slides" if plan or reason else "features"  # beside the slides, their features may be kept
    named = read_cases(paths, settings.kind, columns, root, settings.task, prefer)
    name = settings.kind if paths[0].is_dir() else " + ".join(file.name for file in paths)
    if reason:
        named.notes.append(Problem(f"the encoder is not at hand, so that {NOT_CHECKED} not checked: {reason}"))
    return _check(name, named, settings, plan, start)


def check_items(
    items: Sequence[Mapping[str, Any]],
    settings: CheckSettings | None = None,
    encoding: EncodingPlan | None = None,
    name: str = "cohort",
    finite: Collection[str] | None = None,
) -> TableCheck:
    """Check the items of a cohort, see :py:func:`check_table`.

    Args:
        items: items with ``case_id``, ``patient``, ``image`` (a path or a list), labels, ``site`` and ``split``.
        settings: what the cohort is and how it is to be used.
        encoding: how the cohort is encoded; None estimates no time.
        name: name of the cohort.
        finite: identities of the items whose features are known to be finite; those of the others are all read. With
            None, a sample of each file is read.
    """
    cases = [CheckedCase(dict(item), f"item {i}") for i, item in enumerate(items)]
    return _check(name, NamedCases(cases, [], []), settings or CheckSettings(), encoding, time.perf_counter(), finite)


def _check(
    name: str,
    named: NamedCases,
    settings: CheckSettings,
    encoding: EncodingPlan | None,
    start: float,
    finite: Collection[str] | None = None,
) -> TableCheck:
    cases = named.cases
    read_facts(cases, settings, finite)
    labels = read_labels(cases, settings.task, settings.class_names)
    more, notes = find_problems(cases, labels, settings)
    estimate = None if encoding is None else encoding.estimate(cases)
    if estimate is not None:
        notes += [Problem(note) for note in estimate.notes]
    rows = [_row(case, [problem for problem in more if problem.case == case.name]) for case in cases]
    problems = [*named.problems, *(problem for case in cases for problem in case.problems), *more]
    notes = [*named.notes, *labels.notes, *notes, *(Problem(note, case.name) for case in cases for note in case.notes)]
    counts = _counts(cases, labels)
    return TableCheck(name, rows, problems, notes, labels.sentence, counts, estimate, time.perf_counter() - start)


def _row(case: CheckedCase, problems: Sequence[Problem]) -> dict[str, Any]:
    """Return what is known of a case, with further problems; its files are not named."""
    own = [*case.problems, *problems]
    stated = {key: case.facts.get(key) for key in STATED}
    return {
        CASE: case.name,
        PATIENT: case.patient,
        **{key: _plain(case.item[key]) for key in GIVEN if key in case.item},
        "kind": case.facts.get("kind"),
        **{key: list(value) if isinstance(value, tuple) else value for key, value in stated.items()},
        "status": "problem" if own else "ok",
        "problem": "; ".join(problem.message for problem in own),
        "option": "; ".join(dict.fromkeys(problem.option for problem in own if problem.option)),
        "notes": "; ".join(case.notes),
    }


def _counts(cases: Sequence[CheckedCase], labels: CohortLabels) -> list[dict[str, Any]]:
    """Return the number of patients and cases of each label at each site."""
    rows: list[dict[str, Any]] = []
    for label, values in labels.classes.items():
        groups: Counter[tuple[str, str]] = Counter()
        patients: dict[tuple[str, str], set[str]] = {}
        for case, value in zip(cases, values, strict=True):
            key = (str(case.item.get("site") or ""), "none" if value is None else value)
            groups[key] += 1
            patients.setdefault(key, set()).add(case.patient)
        rows += [
            {"label": label, "value": value, "site": site, "patients": len(patients[site, value]), "cases": count}
            for (site, value), count in sorted(groups.items())
        ]
    return rows


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _cell(value: Any) -> Any:
    """Return a value as the text of a cell, sizes as 512 x 512 x 60."""
    if isinstance(value, list):
        return " x ".join(f"{part:g}" if isinstance(part, (int, float)) else str(part) for part in value)
    return f"{value:.6g}" if isinstance(value, float) else value
