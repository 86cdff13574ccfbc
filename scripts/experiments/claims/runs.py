"""Trainings on the heads with lesions, and the answers of those that are finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.lesions import training as lesions
from experiments.lesions.features import scan_items
from experiments.lesions.settings import Protocol
from experiments.workflows import RUNS
from monai_mil_ext.apps.study import Run, StudyRunner
from monai_mil_ext.data.features.fingerprints import fingerprint

from .settings import read_settings, variants
from .statements import statements
from .training import answer_scans, make_run, train

__all__ = ["Finished", "answer_all", "finished_runs", "lesion_runs", "make_runners", "scan_folder", "waves"]

LESIONS, OWN = RUNS / "lesions", RUNS / "claims"


class Finished(NamedTuple):
    """Finished training.

    Attributes:
        name: name of the variant.
        seed: seed of the cohort.
        spec: how its attention is read, see :py:func:`experiments.lesions.training.answer`.
        folder: folder of the model.
        record: record of the training.
    """

    name: str
    seed: int
    spec: Mapping[str, Any]
    folder: Path
    record: Mapping[str, Any]


def scan_folder(protocol: Protocol, folder: Path = LESIONS) -> Path:
    """Return the folder of the encoded scans of the benchmark."""
    return folder / f"scans_{fingerprint(asdict(protocol.drawing))[:8]}"


def make_runners(protocol: Protocol, data: Path, own: Path = OWN, benchmark: Path = LESIONS) -> dict[str, StudyRunner]:
    """Return the runners of own trainings, and of those of the benchmark."""
    return {
        "own": StudyRunner(own, partial(train, protocol=protocol, data=data), threads=1),
        "benchmark": StudyRunner(benchmark, partial(lesions.train, protocol=protocol, data=data), threads=1),
    }


def lesion_runs(protocol: Protocol) -> list[tuple[str, Run]]:
    """List the trainings with the name of their runner.

    Variants that most claims need come first, of one seed after another, so that a stopped experiment has whole seeds;
    TransMIL, which takes as long as all others, is last.
    """
    return [_make_run(protocol, name, seed) for wave in waves() for seed in protocol.seeds for name in wave]


def waves() -> list[list[str]]:
    """Return the names of the variants by their turn."""
    needed = {name for s in statements() if len(s.plus) < 8 and len(s.minus) < 8 for name in (*s.plus, *s.minus)}
    first = [name for name in variants() if name in needed and not name.startswith("TransMIL")]
    last = [name for name in variants() if name.startswith("TransMIL")]
    return [first, [name for name in variants() if name not in (*first, *last)], last]


def finished_runs(protocol: Protocol, runners: Mapping[str, StudyRunner]) -> list[Finished]:
    """List the finished trainings, by seed."""
    found = []
    for seed in protocol.seeds:
        for name, spec in variants().items():
            runner, run = _make_run(protocol, name, seed)
            record = runners[runner].read(run)
            if record is not None:
                reading = protocol.methods[spec["method"]] if "method" in spec else spec
                found.append(Finished(name, seed, reading, runners[runner].run_folder(run), record))
    return found


def answer_all(protocol: Protocol, finished: Sequence[Finished], data: Path) -> dict[str, dict[int, list[Any]]]:
    """Return the answers of finished trainings on the test scans, by variant and seed."""
    answers: dict[str, dict[int, list[Any]]] = {}
    for training in finished:
        items = scan_items(protocol.test(read_settings()["test"], training.seed), data)
        rows = answer_scans(training.folder, items, training.spec)
        stability = _stability(training.record)
        if stability is not None:
            rows = [{**row, "attention_jsd": stability} for row in rows]
        answers.setdefault(training.name, {})[training.seed] = rows
    return answers


def _stability(record: Mapping[str, Any]) -> float | None:
    """Return the mean change of the attention in the epochs that every training has."""
    first, last = read_settings()["stability_epochs"]
    values = record.get("attention_jsd", [])[first - 1 : last]
    return float(np.mean(values)) if values and None not in values else None


def _make_run(protocol: Protocol, name: str, seed: int) -> tuple[str, Run]:
    cohort, spec = read_settings()["cohort"], variants()[name]
    if "method" in spec:
        return "benchmark", lesions.make_run(protocol, cohort, spec["method"], seed)
    return "own", make_run(protocol, cohort, name, spec, seed)
