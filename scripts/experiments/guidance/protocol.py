"""Protocol of guidance: ``scripts/reproduce guidance`` writes docs/results/guidance_*.json.

Three parts: ``toy`` trains ABMIL on bags of noise with one or two runs, ``semi_synthetic`` trains TransMIL on 1,000
bags of the semi-synthetic set, and ``lesions`` trains ABMIL on scans with inserted lesions (``--cohorts``, folders with
a cohort.csv). Each part compares no guidance, Normal Guidance and the kernel on the same bags and seeds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.workflows import RESULTS, ROOT, RUNS
from monai_mil_ext.apps.study import collect_provenance
from monai_mil_ext.utils import write_json

from .lesions import SEEDS as LESION_SEEDS
from .lesions import compare_lesions
from .rows import Rows, compare, summarize
from .semi_synthetic import SETS, compare_transformers
from .toy import SETTINGS, compare_toy

__all__ = ["main", "make_rows"]

SEEDS = (1, 2, 3)
AGAINST = (("kernel", "NG"), ("kernel", "none"), ("NG", "none"), ("mixture", "NG"))
HEADS = {"bag_auroc": "bag AUROC", "instance_auroc": "slice AUROC"}
NOTES = {
    "toy": "ABMIL, 32 features, 600 bags of 40 to 70 instances for training and 600 for the test, 20 epochs, weight 1.",
    "semi_synthetic": "TransMIL, 1,000 bags for training, 250 for the choice of the epoch, 1,000 for the test, 2 "
    "epochs, weight 1; sets that no other table uses.",
    "lesions": "ABMIL of a study with its own settings, weight 1; the same scans, divided by seed into 60 % for "
    "training, 20 % for the choice of the epoch by loss and 20 % for the test. Development scans, which no other table "
    "uses.",
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


def toy() -> tuple[list[dict[str, Any]], Sequence[int]]:
    """Return the table of the toy sets, and its seeds."""
    return [row for setting in SETTINGS for row in make_rows(setting, compare_toy(setting, SEEDS))], SEEDS


def main(words: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="scripts/reproduce guidance", description=__doc__)
    parser.add_argument("--part", nargs="+", choices=list(NOTES), default=["toy", "semi_synthetic"])
    parser.add_argument("--cohorts", nargs="+", type=Path, default=[], help="folders of the part lesions")
    parser.add_argument("--folder", type=Path, default=RUNS / "guidance", help="folder of the runs")
    args = parser.parse_args(words)
    parts: dict[str, Callable[[], tuple[list[dict[str, Any]], Sequence[int]]]] = {
        "toy": toy,
        "semi_synthetic": lambda: (make_rows("TransMIL", compare_transformers(args.folder)), SETS),
        "lesions": lambda: (
            [row for path in args.cohorts for row in make_rows(path.name, compare_lesions(path))],
            LESION_SEEDS,
        ),
    }
    for part in args.part:
        start = time.process_time()
        rows, seeds = parts[part]()
        _write(part, rows, seeds, time.process_time() - start)


def _write(part: str, rows: Sequence[dict[str, Any]], seeds: Sequence[int], seconds: float) -> None:
    words = f"scripts/reproduce guidance --part {part}"
    provenance = collect_provenance(words, list(seeds), repository=ROOT)
    note = NOTES[part] + SUMMARY.format(seeds=len(seeds))
    result = {**provenance, "cpu_seconds": round(seconds), "heads": HEADS, "note": note, "rows": rows}
    write_json(RESULTS / f"guidance_{part}.json", result)
