"""Benchmark of inference on large bags: seconds and peak resident memory, each row in a new process.

``python -m tests.benchmarks.large_bags [row ...]`` prints one line of JSON per row, measured with two threads.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from monai_mil_ext.inferers import BagInferer
from monai_mil_ext.networks.nets import ABMIL, ASMIL, QGMIL, BagOutputWrapper
from tests.benchmarks.measure import resident

__all__ = ["ROWS", "LargeBag", "measure", "run"]

FEATURES = 1024
GIB = 2**30


class LargeBag(NamedTuple):
    """Row of the table: a network, the size of the bag, and limits."""

    make: Callable[[], nn.Module]
    instances: int
    max_seconds: float
    max_gib: float = 16.0
    from_file: bool = False


def abmil() -> nn.Module:
    """Create the published gated network for 1,024 features."""
    return ABMIL(FEATURES, 2, hidden_size=512, attention_size=256)


ROWS = {
    "abmil": LargeBag(abmil, 1_000_000, 60),
    "abmil_from_file": LargeBag(abmil, 1_000_000, 60, from_file=True),
    "asmil": LargeBag(lambda: ASMIL(FEATURES, 2), 1_000_000, 60),
    "qgmil": LargeBag(lambda: QGMIL(FEATURES, 2), 100_000, 900),
}


def measure(name: str, instances: int | None = None, threads: int = 2) -> dict[str, Any]:
    """Measure a row in a new process; ``instances`` replaces the size of the bag."""
    size = ROWS[name].instances if instances is None else instances
    command = [sys.executable, "-m", "tests.benchmarks.large_bags", "--one", name, str(size)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


class _GeneratedRows:
    """Bag that is generated slice by slice, like one in a file, from a repeated block of random float16 rows."""

    def __init__(self, instances: int) -> None:
        self.instances = instances
        self.block = torch.randn(2**12, FEATURES, generator=torch.Generator().manual_seed(0)).half()

    def __len__(self) -> int:
        return self.instances

    def __getitem__(self, rows: slice) -> torch.Tensor:
        return self.block[torch.arange(rows.start, rows.stop) % len(self.block)]


def run(name: str, instances: int) -> dict[str, Any]:
    """Measure a row in this process, whose peak of memory may be from earlier work."""
    row = ROWS[name]
    torch.manual_seed(0)
    network = BagOutputWrapper(row.make()).eval()  # type: ignore[arg-type]
    rows = _GeneratedRows(instances)
    bag = rows if row.from_file else torch.empty(1, instances, FEATURES)
    if isinstance(bag, torch.Tensor):
        for start in range(0, instances, 2**16):
            stop = min(start + 2**16, instances)
            bag[0, start:stop] = rows[start:stop]
    before = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        out = BagInferer()(bag, network)
    seconds, cpu_seconds = time.perf_counter() - before[0], time.process_time() - before[1]
    assert out["attention"].shape[1] == instances
    assert out["logits"].isfinite().all()
    peak = resident("VmHWM") / GIB  # ru_maxrss starts with the value of the parent
    return {
        "row": name,
        "instances": instances,
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 4),
        "cpu_seconds": round(cpu_seconds, 4),
        "peak_gib": round(peak, 2),
        "max_seconds": row.max_seconds,
        "max_gib": row.max_gib,
    }


if __name__ == "__main__":
    words = sys.argv[1:]
    if words[:1] == ["--one"]:
        sys.stdout.write(json.dumps(run(words[1], int(words[2]))) + "\n")
    else:
        for word in words or ROWS:
            sys.stdout.write(json.dumps(measure(word)) + "\n")
            sys.stdout.flush()
