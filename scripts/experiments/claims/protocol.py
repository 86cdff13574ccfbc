"""The papers' claims, each with a small experiment: ``scripts/reproduce claims`` writes docs/results/claims*.json.

Each variant of a network is trained on the cohorts of ``scripts/reproduce lesions``, whose encoded scans it reads, and
answers the test scans with one lesion. Finished trainings are skipped, so a stopped experiment continues. Tables of
what is finished can be written at any time (``--stage test``, then ``--stage table``): the rest is "not run".
``--part classical`` trains QG-MIL and ASMIL with and without their parts and other networks on the classical sets,
``--part digits`` on MNIST-bags with fixed features, and ``--part large`` ABMIL with and without Normal Guidance on
10,000 semi-synthetic bags; ``--rehearse EPOCHS`` only measures its time.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.lesions.reads import log_reads
from experiments.lesions.settings import read_protocol
from experiments.workflows import RESULTS, ROOT, RUNS
from monai_mil_ext.apps.study import collect_provenance
from monai_mil_ext.utils import load_json, write_json

from . import classical, digits, large
from .runs import answer_all, finished_runs, lesion_runs, make_runners, scan_folder
from .settings import read_settings, variants
from .statements import statements
from .table import claim_row, claims_result, variants_result

__all__ = ["main", "write_tables"]

ANSWERS = RUNS / "claims" / "answers.json"
AGAIN = "claims: ablation of QG-MIL and ASMIL, the anchor as a plug-in, Normal Guidance by seed"
NOTE = (
    "Mean over seeds on the 52 test scans of each with one lesion; *by seed*: the difference of each seed, or on the "
    "classical sets of each set."
)
MEANS = "Means over the finished seeds; entropy is that of the attention, 1 if it is even."
TABLES = {  # start of the names, and note
    "asmil": (("ASMIL",), f"{MEANS} JSD: change of the validation attention per epoch, epochs 2 to 11."),
    "qgmil": (("QG-MIL",), f"{MEANS} Received: slices ranked by the attention that they receive, not by the pool."),
    "plugin": (("ABMIL", "ACMIL", "TransMIL"), MEANS),
}


def write_tables(
    answers: Mapping[str, Mapping[int, Any]],
    seconds: float,
    seeds: Sequence[int],
    more: Sequence[Mapping[str, Any]] = (),
    folder: Path = RESULTS,
) -> None:
    """Write docs/results/claims*.json.

    Args:
        answers: answers of finished trainings, by variant and seed.
        seconds: seconds of a core of these trainings.
        seeds: all seeds.
        more: rows of claims on other data.
        folder: folder of the files.
    """
    known = collect_provenance("scripts/reproduce claims", seeds, threads=1, repository=ROOT)
    results = {"claims": claims_result(statements(), answers, more, NOTE)}
    for name, (starts, note) in TABLES.items():
        names = [variant for variant in variants() if variant.startswith(starts)]
        results[f"claims_{name}"] = variants_result(names, answers, note, len(seeds))
    for name, result in results.items():
        write_json(folder / f"{name}.json", {**known, "cpu_seconds": round(seconds), **result})


def main(words: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="scripts/reproduce claims", description=__doc__)
    parser.add_argument("--part", choices=["lesions", "classical", "digits", "large"], default="lesions")
    parser.add_argument("--stage", choices=["train", "test", "table"], help="by default, all in this order")
    parser.add_argument("--again", default=AGAIN, help="reason to read the test sets of the benchmark again")
    parser.add_argument("--rehearse", type=int, metavar="EPOCHS", help="measure the time of a few epochs, with large")
    args = parser.parse_args(words)
    if args.part == "classical":
        classical.run_all(RUNS / "claims")
    elif args.part == "digits":
        _run_digits(args.stage, args.again)
    elif args.part == "large":
        large.run_all(RUNS / "claims", args.rehearse)
    else:
        _run_lesions(args.stage, args.again)
    if args.stage in (None, "table") and ANSWERS.exists():
        _write_finished()


def _run_digits(stage: str | None, again: str | None) -> None:
    if stage in (None, "train"):
        digits.run_all(RUNS / "claims")
    if stage in (None, "test"):
        digits.answer_all(RUNS / "claims", again)


def _run_lesions(stage: str | None, again: str) -> None:
    protocol = read_protocol()
    data = scan_folder(protocol)
    runners = make_runners(protocol, data)
    if stage in (None, "train"):
        for name, run in lesion_runs(protocol):
            runners[name].run_all([run])
    if stage in (None, "test"):
        finished = finished_runs(protocol, runners)
        sets = [(read_settings()["test"], seed) for seed in sorted({training.seed for training in finished})]
        log_reads(sets, f"{len(finished)} trainings of the {len(variants())} variants of the claims", again)
        seconds = sum(training.record["cpu_seconds"] for training in finished)
        write_json(ANSWERS, {"cpu_seconds": seconds, "answers": answer_all(protocol, finished, data)})


def _write_finished() -> None:
    content = load_json(ANSWERS)
    answers = {name: {int(seed): rows for seed, rows in of.items()} for name, of in content["answers"].items()}
    of_sets = classical.read_answers(RUNS / "claims")
    more = [claim_row(statement, of_sets, "sets") for statement in classical.statements()]
    more += [*large.claim_rows(RUNS / "claims"), *UNTESTED]
    write_tables(answers, content["cpu_seconds"], read_protocol().seeds, more)


UNTESTED = [
    {"paper": paper, "claim": claim, "published": published, "ours": "-", "by_seed": "-", "verdict": reason}
    for paper, claim, published, reason in (
        ("NG", "head, chest and abdominal CT", "slice AUROC .871, .866, .663", "not testable here: no such set"),
        ("ASMIL", "CAMELYON-16, CAMELYON-17, BRACS", "macro F1 .965, .689, .781", "not testable here: no such set"),
        ("QG-MIL", "six sets of slides and blood cells", "best of all on each", "not testable here: sets unknown"),
    )
]
