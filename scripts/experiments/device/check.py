"""Check of the package on a CUDA device: ``scripts/device_check``, with the torch that is installed.

Runs every test marked gpu, and measures speed and memory, in at most nine minutes. Each part has a process and a time
limit of its own, and one that fails does not end the others. Results are written to docs/results/device.json after each
part; ``scripts/results`` writes the table to docs/benchmarks.md. ``--rehearse`` runs all parts on the CPU in small
sizes, and writes nothing unless ``--out`` names a file.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from experiments.speed_table import benchmark_table
from experiments.workflows import RESULTS, ROOT
from monai_mil_ext.apps.study import collect_provenance
from monai_mil_ext.utils.exceptions import hide_absolute_paths
from monai_mil_ext.utils.files import write_json

from .parts import FULL, PARTS, SMALL, find_device

__all__ = ["main", "run_apart"]

# a forked process has all imports; this one computes nothing and never touches the device
PROCESSES = multiprocessing.get_context("fork")
NOTE = (
    "Seconds are those of the clock until the device has computed, in turns; products in float32 without TF32. The "
    "published form is the stand-in of tests/benchmarks/published.py."
)


def run_apart(call: Callable[[], Any], limit: float) -> tuple[Any, str]:
    """Run a call in a process that is ended after ``limit`` seconds; return its result and what went wrong, if so."""
    ours, theirs = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=_answer, args=(call, theirs))
    process.start()
    theirs.close()
    try:
        if not ours.poll(limit):
            return None, f"ended after its limit of {limit:g} s"
        found: tuple[Any, str] = ours.recv()
        return found
    except EOFError:
        process.join(5)
        return None, f"its process ended with {process.exitcode}"
    finally:
        _end(process.pid)
        process.join()


def _answer(call: Callable[[], Any], connection: Connection) -> None:
    os.setsid()  # so that its own processes end with it
    try:
        connection.send((call(), ""))
    except Exception as error:  # a part must not end the others, whatever happens
        connection.send((None, f"{type(error).__name__}: {hide_absolute_paths(error, str(error))}"))


def _end(pid: int | None) -> None:
    with contextlib.suppress(ProcessLookupError):  # it may have ended, with all of its processes
        os.killpg(pid or 0, signal.SIGKILL)


def check(file: Path | None, rehearse: bool) -> dict[str, Any]:
    """Run all parts and return the result, which is written after each part."""
    sizes, start = SMALL if rehearse else FULL, time.perf_counter()
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    machine, problem = ("the CPU", "") if rehearse else run_apart(find_device, 20)
    if problem:
        raise SystemExit(problem)
    result: dict[str, Any] = {}
    for name, part in PARTS.items():
        begun = time.perf_counter()
        found, problem = run_apart(lambda part=part: part.run(sizes), part.limit)  # type: ignore[misc]
        rows += found or []
        failed |= {name: problem} if problem else {}
        print(f"{name}: {problem or 'done'} in {time.perf_counter() - begun:.0f} s", flush=True)
        provenance = collect_provenance(
            "scripts/device_check", [0], seconds=time.perf_counter() - start, repository=ROOT
        )
        provenance["machine"] += f" with {machine}"
        told = "".join(f" {name} was not measured: {problem}." for name, problem in failed.items())
        result = {"kind": "benchmark", **provenance, "failed": failed, "note": NOTE + told, "rows": rows}
        if file is not None:
            write_json(file, result)
    return result


def main(words: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit status is 1 if a part or a test failed."""
    parser = argparse.ArgumentParser(
        prog="scripts/device_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, in small sizes")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: docs/results/device.json")
    args = parser.parse_args(words)
    result = check(args.out or (None if args.rehearse else RESULTS / "device.json"), args.rehearse)
    print(benchmark_table(result))
    tests = [row["detail"]["failed"] for row in result["rows"] if row["group"] == "Tests"]
    return int(bool(result["failed"]) or any(tests))
