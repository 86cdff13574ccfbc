"""Time and memory of calls, side by side on a machine that other work may share."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
Call = Callable[[], object]


class Measured(NamedTuple):
    """What a row of the table says.

    Attributes:
        value: the number that has a goal.
        minima: the same of the fastest repetitions, where it is a ratio of times.
        bound: the same of a network without attention, where that says something.
        detail: what it was made of.
    """

    value: float
    minima: float | None = None
    bound: float | None = None
    detail: Mapping[str, object] = {}


def seconds(calls: Mapping[str, Call], repeats: int) -> dict[str, list[float]]:
    """Wall-clock times of each call, in turns (A B A B), after one of each that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:
                times[name].append(time.perf_counter() - start)
    return times


def time_ratio(calls: Mapping[str, Call], over: str, under: str, repeats: int) -> Measured:
    """Median time of one call over that of another; where there is a call ``bound``, also over that of it."""
    times = seconds(calls, repeats)
    middle = {name: statistics.median(t) for name, t in times.items()}
    bound = middle[over] / middle["bound"] if "bound" in middle else None
    detail = {f"{name}_seconds": round(t, 4) for name, t in middle.items()}
    return Measured(middle[over] / middle[under], min(times[over]) / min(times[under]), bound, detail)


def peak_memory(step: str, side: str, instances: int) -> tuple[int, int]:
    """Bytes resident before one call of a step and at most during it, in a process of its own; see ``steps``."""
    command = [sys.executable, "-m", "tests.benchmarks.measure", step, side, str(instances)]
    # or glibc keeps what was freed below a size that it moves, and a peak is that of the allocator, not of tensors
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    before, peak = json.loads(done.stdout.splitlines()[-1])
    return before, peak


def resident(what: str) -> int:
    """Bytes of this process that are resident (``VmRSS``), or were at most (``VmHWM``)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def main(step: str, side: str, instances: str) -> None:
    """One call after a small one, which makes gradients, optimizer states and buffers of libraries."""
    from tests.benchmarks.steps import STEPS

    made = STEPS[step]()
    small, large = made.bag(1), made.bag(int(instances))
    made.calls[side](small)
    before = resident("VmRSS")
    made.calls[side](large)
    sys.stdout.write(json.dumps([before, resident("VmHWM")]) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
