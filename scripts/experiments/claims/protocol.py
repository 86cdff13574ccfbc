"""The papers' claims, each with a small experiment: ``scripts/reproduce claims`` writes docs/results/claims*.json.

Each variant of a network is trained on the cohorts of ``scripts/reproduce lesions``, whose encoded scans it reads, and
answers the test scans with one lesion. Finished trainings are skipped, so a stopped experiment continues. Tables of
what is finished can be written at any time (``--stage test``, then ``--stage table``): the rest is "not run".
``--part classical`` trains QG-MIL and ASMIL with and without their parts and other networks on the classical sets,
``--part digits`` on MNIST-bags with fixed features, and ``--part large`` ABMIL with and without Normal Guidance on
10,000 semi-synthetic bags, where a seed is added to docs/results/claims_large.json as soon as it is finished.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from experiments.lesions.reads import log_reads
from experiments.lesions.settings import Protocol, read_protocol
from experiments.workflows import RESULTS, ROOT, RUNS
from monai_mil_ext.apps.study import collect_provenance
from monai_mil_ext.utils import load_json, write_json

from . import classical, digits, large
from .cost import Cost
from .networks import common_blocks, networks_result
from .runs import Finished, answer_all, finished_runs, lesion_runs, make_runners, scan_folder
from .settings import read_settings, variants
from .statements import FULL_ASMIL, FULL_QGMIL, statements
from .table import claim_row, claims_result, variants_result
from .verdicts import NOT_RUN

__all__ = ["main", "write_bag_tables", "write_tables"]

ANSWERS = RUNS / "claims" / "answers.json"
LARGE = RESULTS / "claims_large.json"
AGAIN = "claims: ablation of QG-MIL and ASMIL, the anchor as a plug-in, Normal Guidance by seed"
NOTE = (
    "Mean over seeds on the 52 test scans of each with one lesion; *by seed*: the difference of each seed, or on the "
    "classical sets of each set, and on MNIST-bags of each of five seeds with 400 test bags."
)
NETWORKS = (
    "In brackets the 95 % interval by drawing {}; differences are paired. The last column is above or below if the "
    "interval of the difference in AUROC excludes zero.{}"
)
NOTES = {
    "classical": " Mean over {blocks}, each bag tested once, by one network of ten folds.",
    "digits": " Mean over the seeds {blocks}.",
    "lesions": " Mean over the seeds {blocks}, test scans with one lesion.",
}
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
    """Write docs/results/claims*.json of the heads with lesions.

    Args:
        answers: answers of finished trainings, by variant and seed.
        seconds: seconds of a core of these trainings.
        seeds: all seeds.
        more: rows of claims on other data.
        folder: folder of the files.
    """
    results = {"claims": claims_result(statements(), answers, more, NOTE)}
    for name, (starts, note) in TABLES.items():
        names = [v for v in variants() if v.startswith(starts) and v not in read_settings()["networks"]]
        results[f"claims_{name}"] = variants_result(names, answers, note, len(seeds))
    names = ["ABMIL", "TransMIL", "ACMIL", FULL_QGMIL, FULL_ASMIL, *read_settings()["networks"]]
    note = NETWORKS.format("seeds and scans", NOTES["lesions"].format(blocks=_describe(names, answers)))
    results["claims_networks"] = networks_result(names, answers, note)
    for name, result in results.items():
        _write(folder / f"{name}.json", seeds, seconds, result)


def write_bag_tables(
    name: str, answers: Mapping[str, Mapping[int, Any]], cost: Cost, seeds: Sequence[int], folder: Path = RESULTS
) -> None:
    """Write the table of the networks on the classical sets, or on MNIST-bags.

    Args:
        name: ``"classical"`` or ``"digits"``.
        answers: answers of finished trainings, by variant and by number of the set or seed.
        cost: cost of the trainings; what is left is told.
        seeds: all seeds.
        folder: folder of the file.
    """
    names = list(chain.from_iterable(classical.turns()))
    blocks = _describe(names, answers, read_settings()["classical"]["sets"] if name == "classical" else None)
    draws = "sets and bags" if name == "classical" else "seeds and bags"
    note = NETWORKS.format(draws, NOTES[name].format(blocks=blocks) if blocks else "")
    if cost.finished < cost.total:
        note += f" Of this experiment {cost.told}."
    _write(folder / f"claims_{name}.json", seeds, cost.seconds, networks_result(names, answers, note))


def _describe(names: Sequence[str], answers: Mapping[str, Mapping[int, Any]], sets: Sequence[str] | None = None) -> str:
    """Return the blocks of a table, each with its number of bags."""
    blocks = {block: len(answers["ABMIL"][block]) for block in common_blocks(names, answers)}
    return ", ".join(f"{block if sets is None else sets[block]} ({size})" for block, size in blocks.items())


def _write(file: Path, seeds: Sequence[int], seconds: float, result: Mapping[str, Any]) -> None:
    known = collect_provenance("scripts/reproduce claims", seeds, threads=1, repository=ROOT)
    write_json(file, {**known, "cpu_seconds": round(seconds), **result})


def main(words: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="scripts/reproduce claims", description=__doc__)
    parser.add_argument("--part", choices=["lesions", "classical", "digits", "large"], default="lesions")
    parser.add_argument("--stage", choices=["train", "test", "table"], help="by default, all in this order")
    parser.add_argument("--again", default=AGAIN, help="reason to read the test sets of the benchmark again")
    args = parser.parse_args(words)
    if args.part == "classical":
        classical.run_all(RUNS / "claims")
    elif args.part == "digits":
        _run_digits(args.stage, args.again)
    elif args.part == "large":
        _run_large(args.stage)
    else:
        _run_lesions(args.stage, args.again)
    if args.stage in (None, "table") and ANSWERS.exists():
        _write_finished()


def _run_large(stage: str | None, file: Path = LARGE, claims: Path = RESULTS / "claims.json") -> None:
    """Train and test what has no answers, and replace the rows of these claims."""
    if stage != "table":
        large.run_all(RUNS / "claims", file)
    if stage in (None, "table"):
        content, untested = load_json(claims), {row["claim"] for row in UNTESTED}
        rows = [row for row in content["rows"] if row["claim"] not in untested]
        kept = [row for row in rows if not row["claim"].startswith(large.START)]
        write_json(claims, {**content, "rows": [*kept, *large.claim_rows(file), *UNTESTED]})


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
        _answer_lesions(protocol, finished_runs(protocol, runners), data, again)


def _answer_lesions(protocol: Protocol, finished: Sequence[Finished], data: Path, again: str) -> None:
    """Answer the test scans by the trainings that have not, and keep all answers."""
    known = load_json(ANSWERS) if ANSWERS.exists() else {"answers": {}, "dates": {}}
    dates: dict[str, dict[str, str]] = {}
    for training in finished:
        dates.setdefault(training.name, {})[str(training.seed)] = training.record["date"]
    new = [t for t in finished if known["dates"].get(t.name, {}).get(str(t.seed)) != t.record["date"]]
    if new:
        sets = [(read_settings()["test"], seed) for seed in sorted({training.seed for training in new})]
        log_reads(sets, f"{len(new)} trainings: {', '.join(sorted({training.name for training in new}))}", again)
    answers = {name: {seed: known["answers"].get(name, {}).get(seed) for seed in of} for name, of in dates.items()}
    for name, of_seed in answer_all(protocol, new, data).items():
        answers[name] |= {str(seed): rows for seed, rows in of_seed.items()}
    seconds = sum(training.record["cpu_seconds"] for training in finished)
    write_json(ANSWERS, {"cpu_seconds": seconds, "dates": dates, "answers": answers})


def _write_finished() -> None:
    content, folder = load_json(ANSWERS), RUNS / "claims"
    answers = {name: {int(seed): rows for seed, rows in of.items()} for name, of in content["answers"].items()}
    of_sets, of_digits = classical.read_answers(folder), digits.read_answers(folder)
    costs = {"classical": classical.read_cost(folder), "digits": digits.read_cost(folder)}
    more = [_told(claim_row(statement, of_sets, "sets"), costs["classical"]) for statement in classical.statements()]
    more += [_told(claim_row(statement, of_digits), costs["digits"]) for statement in digits.statements()]
    more += [*large.claim_rows(LARGE), *UNTESTED]
    write_tables(answers, content["cpu_seconds"], read_protocol().seeds, more)
    write_bag_tables("classical", of_sets, costs["classical"], [0])
    write_bag_tables("digits", of_digits, costs["digits"], read_settings()["digits"]["seeds"])


def _told(row: dict[str, Any], cost: Cost) -> dict[str, Any]:
    """Return the row of a claim; without an answer it says what the experiment still costs."""
    return row if "found" in row else {**row, "ours": f"{NOT_RUN}: {cost.told}"}


UNTESTED = [
    {"paper": paper, "claim": claim, "published": published, "ours": "-", "by_seed": "-", "verdict": reason}
    for paper, claim, published, reason in (
        ("NG", "head, chest and abdominal CT", "slice AUROC .871, .866, .663", "not testable here: no such set"),
        ("ASMIL", "CAMELYON-16, CAMELYON-17, BRACS", "macro F1 .965, .689, .781", "not testable here: no such set"),
        ("QG-MIL", "six sets of slides and blood cells", "best of all on each", "not testable here: sets unknown"),
    )
]
