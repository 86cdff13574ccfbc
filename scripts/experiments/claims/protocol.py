"""The papers' claims on heads with lesions: ``scripts/reproduce claims`` writes docs/results/claims*.json.

Each variant of a network is trained on the cohorts of ``scripts/reproduce lesions``, whose encoded scans it reads, and
answers the test scans with one lesion. Finished trainings are skipped, so a stopped experiment continues. Tables of
what is finished can be written at any time (``--stage test``): the rest is "not run". ``--part classical`` trains
QG-MIL and ASMIL with and without their parts on the classical sets, ``--part large`` Normal Guidance on 10,000
semi-synthetic bags.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from experiments.lesions import training as lesions
from experiments.lesions.settings import Protocol, read_protocol
from experiments.workflows import RUNS
from monai_mil_ext.apps.study import Run, StudyRunner
from monai_mil_ext.data.features.fingerprints import fingerprint

from .settings import read_settings, variants
from .statements import statements
from .training import make_run, train

__all__ = ["lesion_runs", "main", "make_runners"]

LESIONS, OWN = RUNS / "lesions", RUNS / "claims"


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
    cohort, runs = read_settings()["cohort"], []
    for wave in waves():
        for seed in protocol.seeds:
            runs += [make_any_run(protocol, cohort, name, variants()[name], seed) for name in wave]
    return runs


def waves() -> list[list[str]]:
    """Return the names of the variants by their turn."""
    needed = {name for s in statements() if len(s.plus) < 8 and len(s.minus) < 8 for name in (*s.plus, *s.minus)}
    first = [name for name in variants() if name in needed and not name.startswith("TransMIL")]
    last = [name for name in variants() if name.startswith("TransMIL")]
    return [first, [name for name in variants() if name not in (*first, *last)], last]


def make_any_run(protocol: Protocol, cohort: str, name: str, spec: Mapping[str, Any], seed: int) -> tuple[str, Run]:
    """Return the run of a variant with the name of its runner."""
    if "method" in spec:
        return "benchmark", lesions.make_run(protocol, cohort, spec["method"], seed)
    return "own", make_run(protocol, cohort, name, spec, seed)


def main(words: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="scripts/reproduce claims", description=__doc__)
    parser.add_argument("--stage", choices=["train", "test"], help="by default, both in this order")
    args = parser.parse_args(words)
    protocol = read_protocol()
    if args.stage != "test":
        runners = make_runners(protocol, scan_folder(protocol))
        for name, run in lesion_runs(protocol):
            runners[name].run_all([run])
