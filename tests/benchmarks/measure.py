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
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
GIB = 2**30
Call = Callable[[], object]


class Spent(NamedTuple):
    """Seconds of a call: of the processor for the program and for the system, and of the clock.

    System time is mostly that of pages of memory, which are created at their first use. Other work on the machine
    changes seconds of the processor little, unlike those of the clock.
    """

    user: float
    system: float
    wall: float

    @property
    def processor(self) -> float:
        """Seconds that all threads together kept processors busy."""
        return self.user + self.system


class Measurement(NamedTuple):
    """Result of a row of the table.

    Attributes:
        value: value that is compared with the goal.
        interval: bounds of its 95 % interval, if there are at least six repetitions.
        bound: the same ratio for a network without attention, if it is a useful bound.
        detail: values from which it is computed.
        clock: seconds that are compared, ``processor`` or ``wall``, in a ratio of times.
        turns: number of repetitions.
        seconds: for each side of a ratio, the median ``user``, ``system`` and ``wall`` seconds of a call, and
            ``spread``, the range of the compared seconds over their median.
    """

    value: float
    interval: tuple[float, float] | None = None
    bound: float | None = None
    detail: Mapping[str, object] = {}
    clock: str | None = None
    turns: int | None = None
    seconds: Mapping[str, Mapping[str, float]] = {}


def spend(call: Call) -> Spent:
    """Measure the seconds of a call in all threads of this process."""
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    call()
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    return Spent(after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime, wall)


def take_turns(calls: Mapping[str, Call], repeats: int) -> dict[str, list[Spent]]:
    """Measure calls in turns, the first one by turns (A B B A), after one uncounted call of each."""
    spent: dict[str, list[Spent]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name in reversed(calls) if turn % 2 else calls:
            seconds = spend(calls[name])
            if turn:
                spent[name].append(seconds)
    return spent


def paired_ratio(
    calls: Mapping[str, Call], over: str, under: str, repeats: int = 15, clock: str = "processor"
) -> Measurement:
    """Measure the ratio of the seconds of two calls, in pairs, with the 95 % interval of the median of the pairs.

    A call ``bound`` gives the bound of the ratio; the seconds of further calls are recorded. ``clock="wall"`` is for
    calls that wait, for files or other processes.
    """
    spent = take_turns(calls, repeats)
    times = {name: [getattr(s, clock) for s in turns] for name, turns in spent.items()}

    def pairs(other: str) -> list[float]:
        return [a / b for a, b in zip(times[over], times[other], strict=True)]

    ratios = pairs(under)
    sides = sorted(spent, key=lambda name: (name != over, name != under))
    return Measurement(
        statistics.median(ratios),
        interval=median_interval(ratios) if repeats >= 6 else None,
        bound=statistics.median(pairs("bound")) if "bound" in calls else None,
        clock=clock,
        turns=repeats,
        seconds={name: summary(spent[name], times[name]) for name in sides},
    )


def seconds_of(call: Call, repeats: int) -> Measurement:
    """Measure the processor's seconds of a call, their median after one uncounted call."""
    (spent,) = take_turns({"call": call}, repeats).values()
    return of_values([each.processor for each in spent], {"call": spent}, clock="processor")


def of_values(values: Sequence[float], spent: Mapping[str, Sequence[Spent]] | None = None, **known: Any) -> Measurement:
    """Return the median of the values of some turns, with its 95 % interval if there are at least six."""
    return Measurement(
        statistics.median(values),
        interval=median_interval(values) if len(values) >= 6 else None,
        turns=len(values),
        seconds={name: summary(turns, [each.processor for each in turns]) for name, turns in (spent or {}).items()},
        **known,
    )


def summary(spent: Sequence[Spent], compared: Sequence[float]) -> dict[str, float]:
    """Return the median seconds of a side, and the range of the compared ones over their median."""
    middle = {kind: round(statistics.median(getattr(s, kind) for s in spent), 6) for kind in Spent._fields}
    return {**middle, "spread": round((max(compared) - min(compared)) / statistics.median(compared), 3)}


def allocator(maps: str | None = None) -> str:
    """Return the name of the allocator of this process, and whether glibc was told to keep freed memory."""
    maps = Path("/proc/self/maps").read_text() if maps is None else maps
    for name in ("jemalloc", "tcmalloc", "mimalloc"):
        if name in maps:
            return name
    kept = int(os.environ.get("MALLOC_TRIM_THRESHOLD_", "0")) > GIB
    return "glibc, freed memory kept" if kept else "glibc"


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
