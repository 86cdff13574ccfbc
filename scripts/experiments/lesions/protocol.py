"""Benchmark on heads with inserted lesions: ``scripts/reproduce lesions`` writes docs/results/lesions*.json.

Scans are drawn and encoded, every method of protocol.json is trained on cohorts with one lesion and with one to three,
and each test set is read once. Finished scans and trainings are skipped, so a stopped benchmark continues.
``--stage tables`` repeats paired differences and sets of slices from the answers that the tests have left.
``--quick`` runs the methods of the quickstart on a seed of its own, and ``--development SEED`` any others on another.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from experiments.tables import result_table
from experiments.workflows import BUNDLES, RESULTS, ROOT, RUNS
from monai_mil_ext.apps.study import StudyRunner, collect_provenance
from monai_mil_ext.data import PlannedScan
from monai_mil_ext.data.features.fingerprints import fingerprint
from monai_mil_ext.utils import load_json, write_json

from .features import prepare_scans, scan_items
from .further import write_pairs, write_sets
from .measures import compare_with_center, summarize
from .reads import log_reads
from .settings import TESTS, Protocol, read_protocol
from .training import answer, make_run, train

__all__ = ["Benchmark", "main"]

CENTER = "center"
HEADS = {"pointing_game": "top slice in lesion", "entropy_ratio": "entropy", "difference": "slice AUROC less center"}
QUICK = BUNDLES / "scan_mil" / "data_lesions"
Rows = dict[str, dict[int, list[dict[str, Any]]]]  # by method and seed


class Benchmark:
    """Benchmark of some methods on some seeds.

    Args:
        protocol: protocol.
        seeds: seeds of cohorts and tests.
        methods: names of the methods.
        folder: folder of the trainings.
        data: folder of the scans.
    """

    def __init__(
        self, protocol: Protocol, seeds: Sequence[int], methods: Sequence[str], folder: Path, data: Path | None = None
    ) -> None:
        self.protocol, self.seeds = protocol, tuple(seeds)
        self.methods = list(dict.fromkeys([CENTER, *methods]))
        self.data = data or folder / f"scans_{fingerprint(asdict(protocol.drawing))[:8]}"
        self.runner = StudyRunner(folder, partial(train, protocol=protocol, data=self.data), threads=1)

    def prepare(self, cohorts: Sequence[str], tests: Sequence[str], jobs: int | None = None) -> None:
        """Draw and encode all scans of cohorts and tests."""
        scans = [scan for seed in self.seeds for name in cohorts for scan in self.protocol.cohort(name, seed)]
        scans += [scan for seed in self.seeds for name in tests for scan in self.protocol.test(name, seed)]
        prepare_scans(list(dict.fromkeys(scans)), self.data, self.protocol.drawing, jobs)

    def train(self, cohorts: Sequence[str], jobs: int = 1) -> None:
        """Train all methods on cohorts."""
        runs = [make_run(self.protocol, c, m, seed) for c in cohorts for seed in self.seeds for m in self.methods]
        self.runner.run_all(runs, jobs)

    def test(self, cohort: str, test: str) -> Rows:
        """Return the answers of all methods that were trained on ``cohort`` on the scans of ``test``, and keep them."""
        rows: Rows = {}
        for method in self.methods:
            for seed in self.seeds:
                run = make_run(self.protocol, cohort, method, seed)
                self.runner.read_all([run])
                items = scan_items(self.protocol.test(test, seed), self.data)
                spec = self.protocol.methods[method]
                rows.setdefault(method, {})[seed] = answer(self.runner.run_folder(run), items, spec)
        write_json(self._answers(cohort, test), rows)
        return rows

    def answers(self, cohort: str, test: str) -> Rows:
        """Return the answers that :py:meth:`test` has kept, so that no test set is read for another table."""
        kept = load_json(self._answers(cohort, test))
        return {method: {int(seed): _undo(rows) for seed, rows in by_seed.items()} for method, by_seed in kept.items()}

    def _answers(self, cohort: str, test: str) -> Path:
        return self.runner.folder / "answers" / f"{cohort}_{test}.json"

    def scans(self, test: str) -> list[PlannedScan]:
        """Return the scans of a test set of all seeds."""
        return [scan for seed in self.seeds for scan in self.protocol.test(test, seed)]


def _undo(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with NaN where JSON has null."""
    return [{key: float("nan") if value is None else value for key, value in row.items()} for row in rows]


def table_rows(rows: Rows, num_samples: int = 1000) -> list[dict[str, Any]]:
    """Return a row of the table for each method, with the paired differences to the center."""
    table = []
    for method, by_seed in rows.items():
        row = {"name": method, **summarize(by_seed, num_samples)}
        compared = None if method == CENTER else compare_with_center(by_seed, rows[CENTER], num_samples)
        if compared is not None:
            auroc = compared["instance_auroc"]
            row["values"]["difference"] = auroc["difference"]
            row["interval_95"]["difference"] = (auroc["low"], auroc["high"])
            row["less_center"] = compared
        table.append(row)
    return table


def main(words: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="scripts/reproduce lesions", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the quickstart: one seed, one lesion, some methods")
    parser.add_argument("--development", type=int, nargs="+", metavar="SEED", help="other seeds; writes no result")
    parser.add_argument("--methods", nargs="+", help="some methods instead of all, with --development")
    parser.add_argument("--stage", choices=["scans", "train", "test", "tables"], help="by default, all in this order")
    parser.add_argument("--again", help="reason to repeat test sets that were read according to the log")
    parser.add_argument("--jobs", type=int, help="number of processes; by default one per core")
    args = parser.parse_args(words)
    protocol = read_protocol()
    if args.quick:
        benchmark = Benchmark(
            protocol, [protocol.quick_seed], protocol.quick_methods, RUNS / "quickstart" / "lesions", QUICK
        )
        print(run_some(benchmark, ["one"], args.jobs))
    elif args.development:
        _check_unused(protocol, args.development)
        methods = args.methods or list(protocol.methods)
        benchmark = Benchmark(protocol, args.development, methods, RUNS / "lesions_development")
        print(run_some(benchmark, list(protocol.tests), args.jobs))
    else:
        run_benchmark(Benchmark(protocol, protocol.seeds, list(protocol.methods), RUNS / "lesions"), args)


def _check_unused(protocol: Protocol, seeds: Sequence[int]) -> None:
    used = sorted({*protocol.seeds, protocol.quick_seed} & set(seeds))
    if used:
        raise ValueError(f"`development` must be seeds that the benchmark does not use, got {used}.")


def run_some(benchmark: Benchmark, tests: Sequence[str], jobs: int | None = None) -> str:
    """Draw, train and test on the cohort with one lesion, and return the tables."""
    benchmark.prepare(["one"], tests, jobs)
    benchmark.train(["one"])
    tables = []
    for test in tests:
        rows = table_rows(benchmark.test("one", test))
        write_json(benchmark.runner.folder / f"{test}.json", {"rows": rows})
        tables.append(result_table({"heads": HEADS, "rows": rows, "note": _note(rows, test)}))
    return "\n".join(tables)


def run_benchmark(benchmark: Benchmark, args: argparse.Namespace) -> None:
    """Run the stages of the benchmark."""
    protocol, start = benchmark.protocol, time.perf_counter()
    cohorts, tests = list(protocol.cohorts), list(protocol.tests)
    if args.stage in (None, "scans"):
        benchmark.prepare(cohorts, tests, args.jobs)
    if args.stage in (None, "train"):
        benchmark.train(cohorts, args.jobs or 1)
    if args.stage in (None, "test"):
        log_reads(
            [(test, seed) for test in tests for seed in benchmark.seeds], ", ".join(benchmark.methods), args.again
        )
        tables = {(c, t): table_rows(benchmark.test(c, t)) for c in cohorts for t in tests}
        write_results(tables, time.perf_counter() - start, protocol)
    if args.stage in (None, "test", "tables"):
        write_pairs(benchmark.answers, protocol)
        write_sets(benchmark.answers, protocol)


def write_results(
    tables: Mapping[tuple[str, str], list[dict[str, Any]]], seconds: float, protocol: Protocol, folder: Path = RESULTS
) -> None:
    """Write the main table, and for each cohort the slice AUROC of all tests, as docs/results/lesions*.json."""
    known = collect_provenance("scripts/reproduce lesions", protocol.seeds, seconds=seconds, repository=ROOT)
    main_rows = tables["one", "one"]
    write_json(folder / "lesions.json", {**known, "heads": HEADS, "note": _note(main_rows, "one"), "rows": main_rows})
    for cohort in protocol.cohorts:
        results = {test: tables[cohort, test] for test in protocol.tests}
        content = {"heads": {**TESTS, **_differences()}, "note": NOTES[cohort], "rows": _across(results)}
        write_json(folder / f"lesions_trained_on_{cohort}.json", {**known, **content, "tests": results})


NOTES = {
    "one": "Slice AUROC, and its difference to the center, of networks trained on scans with one lesion.",
    "many": "Slice AUROC, and its difference to the center, of networks trained on scans with one to three lesions.",
}


def _differences() -> dict[str, str]:
    return {f"{test}_difference": f"{head}, less center" for test, head in TESTS.items()}


def _across(results: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return a row for each method, with its slice AUROC on every test set."""
    rows = []
    for k, first in enumerate(next(iter(results.values()))):
        row: dict[str, Any] = {"name": first["name"], "values": {}, "interval_95": {}}
        for test, of_test in results.items():
            for key, name in ((test, "instance_auroc"), (f"{test}_difference", "difference")):
                row["values"][key] = of_test[k]["values"].get(name)
                row["interval_95"][key] = of_test[k]["interval_95"].get(name)
        rows.append(row)
    return rows


def _note(rows: Sequence[Mapping[str, Any]], test: str) -> str:
    first = rows[0]
    seeds = len(first["seeds"]["instance_auroc"])
    return (
        f"{first['num_scans']} test scans ({TESTS[test]}), {first['num_positive']} with lesions, of {seeds} seed(s): "
        "mean over seeds, in brackets the 95 % interval by drawing scans; the difference is paired over scans."
    )
