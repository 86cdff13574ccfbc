"""Measurement of speed and memory: ``scripts/benchmark [row ...]``, by default of all rows; ``--list`` lists them.

Each row is measured in a separate process, by default with two threads. Its user, system and wall seconds, the spread
of each side, the threads, the allocator and the load of the machine are printed. Results are written to
docs/results/benchmarks.json, where other rows are kept; the table is printed, and ``scripts/results`` writes it to
docs/benchmarks.md. ``--parts`` measures the parts of a training step and writes docs/results/time.json;
``--profiles`` measures what both sides of rows with a missed or open goal spend, and writes docs/results/profiles.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from monai_mil_ext.apps.study import collect_provenance

from .tables import benchmark_table
from .workflows import RESULTS, ROOT

sys.path.insert(0, str(ROOT))

from tests.benchmarks.flops import describe_processor
from tests.benchmarks.profiles import PROFILES
from tests.benchmarks.rows import ROWS, group_of

__all__ = ["main"]

FILE = RESULTS / "benchmarks.json"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
PACKAGES = ("monai-mil-ext", "monai", "torch", "torchmil", "numpy")
NOTE = (
    "A ratio of times is the median ratio of the user and system seconds of all threads, of pairs taken in turns in "
    "one process, with its 95 % interval, which assumes no distribution. Where waiting is the point, seconds are those "
    "of the clock (*wall*). Both sides have the same optimizer. A goal is met if the whole interval reaches it, and "
    "*open* if the interval includes it. User and wall seconds are medians of each side. Memory is the peak of a fresh "
    "process over what it had before the step, with an allocator that gives back what is freed. The bound is the same "
    "ratio for our network with its attention removed: no way to compute attention could give more. Rows in bfloat16 "
    "are measured only on a processor that has such instructions."
)
PARTS_NOTE = (
    "Seconds are user and system seconds of the processor, medians of seven steps. *Forward* is without attention, "
    "*backward* with that of attention; *anchor* is its forward pass and the update of its weights; *handlers* is what "
    "MONAI's trainer with its handler takes beyond the same loop by hand, on 30 instances."
)
PROFILES_NOTE = (
    "Seconds are user seconds of the processor with one thread, except for *pages*, the system seconds, most of which "
    "create pages of memory or give them back; medians of the profiled steps. *Attention* is fused or batched products "
    "and softmax, *products* are those of layers, and *Python* is all that no kernel takes, reading of files included. "
    "*Least* is what the products that both sides need, those of attention included, take at the rate of matrices of "
    "2,048 x 2,048, measured in the same process. The same kernels differ by some percent between two profiles, and "
    "more on a machine with other work. For the handlers, the same trainer or loop without their terms is subtracted."
)


def measure(name: str, threads: int) -> dict[str, Any]:
    """Measure one row in a separate process."""
    print(f"{name} ...", end=" ", flush=True)
    row = run("tests.benchmarks.rows", name, threads=threads)
    print(f"not measured: {row['unmeasured']}" if "unmeasured" in row else "\n".join(describe(row)), flush=True)
    return row


def describe(row: dict[str, Any]) -> list[str]:
    """Return the lines that are printed for a row: its value, the seconds of each side, and the conditions."""
    low, high = row["interval"] or (None, None)
    interval = "" if low is None else f" [{low:.3g}, {high:.3g}]"
    lines = [f"{row['value']:.3g}{interval} in {row['wall_seconds']} s"]
    for side, seconds in row["seconds"].items():
        times = ", ".join(f"{kind} {seconds[kind]:.4g} s" for kind in ("user", "system", "wall"))
        spread = f", spread {100 * seconds['spread']:.0f} %" if "spread" in seconds else ""
        lines.append(f"  {side}: {times}{spread}")
    kind = f" of {row['clock']} seconds" if row["clock"] else ""
    turns = f", {row['turns']} turns{kind}" if row["turns"] else ""
    load = " to ".join(f"{value:.1f}" for value in row["load"])
    return [*lines, f"  {row['threads']} threads, {row['allocator']}, load {load}{turns}"]


def run(module: str, *words: str, threads: int) -> dict[str, Any]:
    """Run a module in a separate process and return what it prints, with its threads, its time and the load."""
    start, load = time.perf_counter(), os.getloadavg()[0]
    variables = {**os.environ, **dict.fromkeys(THREADS, str(threads))}
    command = [sys.executable, "-m", module, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"`{module}` ended with code {done.returncode}:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    loads = [round(load, 2), round(os.getloadavg()[0], 2)]
    return {**found, "threads": threads, "wall_seconds": round(time.perf_counter() - start), "load": loads}


def save_parts() -> None:
    """Measure the parts of a step with one thread and write them to the file of the page."""
    found = run("tests.benchmarks.step_parts", threads=1)
    provenance = collect_provenance(
        "scripts/benchmark --parts", [0], seconds=found["wall_seconds"], threads=1, packages=PACKAGES, repository=ROOT
    )
    content = {"kind": "parts", **provenance, "machine": describe_processor(), "note": PARTS_NOTE, **found}
    (RESULTS / "time.json").write_text(json.dumps(content, indent=1) + "\n")


def save_profiles(names: Sequence[str]) -> None:
    """Profile rows with one thread, and write each at once; others of the file are kept, with their machine."""
    file = RESULTS / "profiles.json"
    for name in names:
        print(f"{name} ...", flush=True)
        found = {**run("tests.benchmarks.profiles", name, threads=1), "machine": describe_processor()}
        kept = {row["name"]: row for row in json.loads(file.read_text())["rows"]} if file.exists() else {}
        kept[name] = found
        seconds = sum(row["wall_seconds"] for row in kept.values())
        provenance = collect_provenance(
            "scripts/benchmark --profiles", [0], seconds=seconds, threads=1, packages=PACKAGES, repository=ROOT
        )
        rows = [kept[name] for name in PROFILES if name in kept]
        missing = [row.what for name, row in PROFILES.items() if name not in kept]
        content = {"kind": "profiles", **provenance, "note": PROFILES_NOTE, "unmeasured": missing, "rows": rows}
        file.write_text(json.dumps(content, indent=1) + "\n")


def save(rows: Sequence[dict[str, Any]], threads: int) -> None:
    """Write rows to the file, in the order of the table; others of the file are kept, with their commit and machine."""
    before = json.loads(FILE.read_text()) if FILE.exists() else {"rows": []}
    kept = {row["name"]: {"commit": before["commit"], "machine": before["machine"], **row} for row in before["rows"]}
    kept.update({row["name"]: dict(row) for row in rows})
    seconds = sum(row["wall_seconds"] for row in kept.values())
    provenance = collect_provenance(
        "scripts/benchmark", [0], seconds=seconds, threads=threads, packages=PACKAGES, repository=ROOT
    )
    provenance["versions"] = {**before.get("versions", {}), **provenance["versions"]}  # torchmil may be absent today
    for row in rows:
        kept[row["name"]]["commit"] = provenance["commit"]
    ordered = [{**kept[name], "group": group_of(name)} for name in ROWS if name in kept]
    FILE.write_text(json.dumps({"kind": "benchmark", **provenance, "note": NOTE, "rows": ordered}, indent=1) + "\n")


def measure_all(names: Sequence[str], threads: int, dry_run: bool) -> None:
    """Measure rows, write each at once, and print the table; rows that fail, or mean nothing here, are told."""
    rows, failed = [], []
    for name in names:
        try:
            row = measure(name, threads)
        except RuntimeError as error:
            print(f"failed: {error}", flush=True)
            failed.append(name)
            continue
        rows += [] if "unmeasured" in row else [row]
        if rows and not dry_run:
            save(rows, threads)
    if rows and not dry_run:
        print(benchmark_table(json.loads(FILE.read_text())))
    if failed:
        raise SystemExit(f"{len(failed)} of {len(names)} rows failed: {', '.join(failed)}")
    if not rows:
        raise SystemExit("no row was measured")


def main(words: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="scripts/benchmark", description=__doc__)
    parser.add_argument("row", nargs="*", choices=[[], *ROWS], metavar="row")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parts", action="store_true", help="measure the parts of a step, for docs/time.md")
    parser.add_argument("--profiles", nargs="*", choices=[[], *PROFILES], metavar="row", help="profile both sides")
    parser.add_argument("--dry-run", action="store_true", help="print only, write nothing")
    args = parser.parse_args(words)
    if args.list:
        print("\n".join(f"{name:32}{row.what}" for name, row in ROWS.items()))
        return
    if args.parts:
        save_parts()
        return
    if args.profiles is not None:
        save_profiles(args.profiles or list(PROFILES))
        return
    measure_all(args.row or list(ROWS), args.threads, args.dry_run)
