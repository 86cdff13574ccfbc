"""Measures of time and memory of calls, on a machine that may run other work too."""

from __future__ import annotations

import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
Call = Callable[[], object]


class Measurement(NamedTuple):
    """Result of a row of the table.

    Attributes:
        value: value that is compared with the goal.
        minima: the same ratio for the fastest repetitions, if it is a ratio of times.
        bound: the same ratio for a network without attention, if it is a useful bound.
        detail: values from which it is computed.
    """

    value: float
    minima: float | None = None
    bound: float | None = None
    detail: Mapping[str, object] = {}


def seconds(calls: Mapping[str, Call], repeats: int) -> dict[str, list[float]]:
    """Measure wall-clock times of calls in turns (A B A B), after one uncounted call of each."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:
                times[name].append(time.perf_counter() - start)
    return times


def time_ratio(calls: Mapping[str, Call], over: str, under: str, repeats: int) -> Measurement:
    """Measure the ratio of the median times of two calls, also relative to a call ``bound`` if there is one."""
    times = seconds(calls, repeats)
    middle = {name: statistics.median(t) for name, t in times.items()}
    bound = middle[over] / middle["bound"] if "bound" in middle else None
    detail = {f"{name}_seconds": round(t, 4) for name, t in middle.items()}
    return Measurement(middle[over] / middle[under], min(times[over]) / min(times[under]), bound, detail)


def processor_ratio(calls: Mapping[str, Call], over: str, under: str, repeats: int) -> Measurement:
    """Measure the ratio of the median seconds that two calls keep processors busy; detail: user and system apart.

    System time is mostly that of pages of memory, which are created at their first use. Other work on the machine
    changes these seconds little, unlike those of a clock.
    """
    spent: dict[str, list[tuple[float, float]]] = {over: [], under: []}
    for turn in range(repeats + 1):
        for name, times in spent.items():
            before = resource.getrusage(resource.RUSAGE_SELF)
            calls[name]()
            after = resource.getrusage(resource.RUSAGE_SELF)
            if turn:
                times.append((after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime))
    totals = {name: [user + system for user, system in times] for name, times in spent.items()}
    detail = {
        f"{name}_{kind}_s": round(statistics.median(pair[i] for pair in times), 2)
        for name, times in spent.items()
        for i, kind in enumerate(("user", "system"))
    }
    ratio = statistics.median(totals[over]) / statistics.median(totals[under])
    return Measurement(ratio, min(totals[over]) / min(totals[under]), detail=detail)


def paired_processor_ratio(calls: Mapping[str, Call], over: str, under: str, repeats: int = 25) -> Measurement:
    """Measure the ratio of the seconds that two calls keep processors busy, in pairs; its value is the lower bound.

    In each turn both are called, the first one by turns; the bounds are those of the 95 % interval of the median of the
    ratios of the turns, from their order alone.
    """
    ratios = []
    for turn in range(repeats + 1):
        spent = {}
        for name in (over, under) if turn % 2 else (under, over):
            before = resource.getrusage(resource.RUSAGE_SELF)
            calls[name]()
            after = resource.getrusage(resource.RUSAGE_SELF)
            spent[name] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        ratios += [spent[over] / spent[under]] if turn else []
    low, high = median_interval(ratios)
    detail = {"ratio": round(statistics.median(ratios), 3), "low": round(low, 3), "high": round(high, 3)}
    return Measurement(low, detail=detail | {"turns": repeats})


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the bounds of the 95 % interval of the median of a sample, which assumes no distribution.

    The bounds are the k-th lowest and highest values with the largest k of at most 2.5 % chance that fewer than k of n
    fair coins show heads.
    """
    ordered, n = sorted(values), len(values)
    tail = [sum(math.comb(n, i) for i in range(k)) / 2**n for k in range(n // 2 + 1)]
    k = max(k for k, chance in enumerate(tail) if chance <= 0.025)
    if not k:
        raise ValueError(f"`values` must be at least 6, got {n}.")
    return ordered[k - 1], ordered[-k]


def peak_memory(step: str, side: str, instances: int) -> tuple[int, int]:
    """Measure resident bytes before a call of a step and their peak during it, in a new process; see ``steps``."""
    command = [sys.executable, "-m", "tests.benchmarks.measure", step, side, str(instances)]
    # otherwise glibc keeps freed memory, and the peak is that of the allocator, not of tensors
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    before, peak = json.loads(done.stdout.splitlines()[-1])
    return before, peak


def resident(field: str) -> int:
    """Return the resident bytes of this process (``VmRSS``), or their peak (``VmHWM``)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def main(step: str, side: str, instances: str) -> None:
    """Print the memory of a call that follows a small one, which allocates gradients, optimizer states and buffers."""
    from tests.benchmarks.steps import STEPS

    steps = STEPS[step]()
    small, large = steps.bag(1), steps.bag(int(instances))
    steps.calls[side](small)
    before = resident("VmRSS")
    steps.calls[side](large)
    sys.stdout.write(json.dumps([before, resident("VmHWM")]) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
