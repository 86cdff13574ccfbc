"""Protocol of guidance: ``scripts/reproduce guidance`` writes docs/results/guidance_*.json.

Two parts: ``toy`` trains ABMIL on bags of noise with one or two runs, and ``semi_synthetic`` trains TransMIL on 1,000
bags of the semi-synthetic set. Each compares no guidance, Normal Guidance and the kernel on the same bags and seeds;
``scripts/reproduce lesions`` does so on scans. The rows of test bags are kept in ``--folder``, so a stopped protocol
continues; ``--only`` computes those of one set.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from experiments.workflows import RESULTS, ROOT, RUNS
from monai_mil_ext.apps.study import collect_provenance
from monai_mil_ext.utils import write_json

from .rows import Rows, compare, summarize
from .semi_synthetic import compare_transformers
from .toy import SETTINGS, compare_toy

__all__ = ["list_sets", "main", "make_rows", "read_or_compute"]

SEEDS = (1, 2, 3)
AGAINST = (("kernel", "NG"), ("kernel", "none"), ("NG", "none"), ("mixture", "NG"))
HEADS = {"bag_auroc": "bag AUROC", "instance_auroc": "slice AUROC"}
NOTES = {
    "toy": "ABMIL, 32 features, 600 bags of 40 to 70 instances for training and 300 for the test, 20 epochs, weight 1.",
    "semi_synthetic": "TransMIL, 1,000 bags for training, 250 for the choice of the epoch, 300 for the test, 2 "
    "epochs, weight 1; sets that no other table uses.",
}
SUMMARY = (
    " Mean ± population sd over {seeds} seeds; differences with 95 % intervals of a paired bootstrap over test bags."
)


def make_rows(setting: str, rows: Mapping[str, Rows]) -> list[dict[str, Any]]:
    """Return the rows of a table: each guidance, then the paired differences of those that are compared."""
    table: list[dict[str, Any]] = [{"name": f"{setting}: {name}", **summarize(of)} for name, of in rows.items()]
    for a, b in AGAINST:
        if a in rows and b in rows:
            of = compare(rows[a], rows[b])
            values = {name: of[name]["difference"] for name in HEADS}
            limits = {name: [of[name]["low"], of[name]["high"]] for name in HEADS}
            table.append({"name": f"{setting}: {a} - {b}", "values": values, "interval_95": limits})
    return table


def list_sets(folder: Path) -> dict[str, dict[str, Callable[[], Mapping[str, Rows]]]]:
    """Return the functions that compute the rows of test bags, by part and set."""
    return {
        "toy": {setting: partial(compare_toy, setting, SEEDS) for setting in SETTINGS},
        "semi_synthetic": {"TransMIL": partial(compare_transformers, folder / "transmil")},
    }


def read_or_compute(file: Path, function: Callable[[], Mapping[str, Rows]]) -> tuple[Mapping[str, Rows], float]:
    """Return the rows of a set with the seconds of a core that they took, from its file if there is one."""
    if not file.exists():
        start = time.process_time()
        rows = function()
        write_json(file, {"rows": rows, "cpu_seconds": time.process_time() - start})
    found = json.loads(file.read_text())
    return found["rows"], found["cpu_seconds"]


def main(words: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="scripts/reproduce guidance", description=__doc__)
    parser.add_argument("--part", nargs="+", choices=list(NOTES), default=list(NOTES))
    parser.add_argument("--only", help="compute the rows of this set, and write no table")
    parser.add_argument("--folder", type=Path, default=RUNS / "guidance", help="folder of the runs")
    args = parser.parse_args(words)
    for part in args.part:
        sets = list_sets(args.folder)[part]
        chosen = [args.only] if args.only else list(sets)
        done = {name: read_or_compute(args.folder / part / f"{name}.json", sets[name]) for name in chosen}
        if not args.only:
            rows = [row for name, (of, _) in done.items() for row in make_rows(name, of)]
            seeds = next(iter(next(iter(done.values()))[0].values())).keys()
            _write(part, rows, sorted(map(int, seeds)), sum(seconds for _, seconds in done.values()))


def _write(part: str, rows: Sequence[dict[str, Any]], seeds: Sequence[int], seconds: float) -> None:
    words = f"scripts/reproduce guidance --part {part}"
    provenance = collect_provenance(words, list(seeds), repository=ROOT)
    note = NOTES[part] + SUMMARY.format(seeds=len(seeds))
    result = {**provenance, "cpu_seconds": round(seconds), "heads": HEADS, "note": note, "rows": rows}
    write_json(RESULTS / f"guidance_{part}.json", result)
