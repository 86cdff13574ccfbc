"""Parts of the check of a device: each returns rows of its table, and runs in a process of its own."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import torch
from torch import Tensor, nn

from experiments.workflows import ROOT
from monai_mil_ext.networks.encoders import MobileNetV2Features
from monai_mil_ext.networks.nets import ABMIL, QGMIL
from monai_mil_ext.transforms import EncodeInstances

sys.path.insert(0, str(ROOT))

from tests.benchmarks import published
from tests.benchmarks.flops import copy_rate, count_flops, matrix_rate
from tests.benchmarks.measure import GIB, Measurement, paired_ratio, resident, spend
from tests.benchmarks.steps import training

__all__ = ["FULL", "PARTS", "SMALL", "Part", "Sizes", "find_device"]

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
GOALS = {"float32": 3.0, "bfloat16": 4.0}
Row = dict[str, Any]


class Sizes(NamedTuple):
    """Sizes of what is measured, on a device or in a rehearsal on the CPU."""

    device: str
    instances: int
    matrix: int
    copied: int
    scans: int
    tiles: int
    repeats: int
    seconds: float  # of the longest step that is tried
    backend: str


FULL = Sizes("cuda", 20_000, 8192, 2**31, 64, 4096, 15, 4.0, "inductor")
SMALL = Sizes("cpu", 48, 64, 2**16, 3, 2, 1, 0.05, "eager")


class Part(NamedTuple):
    """Part of the check, and the seconds after which it is ended."""

    run: Callable[[Sizes], list[Row]]
    limit: float


def find_device() -> str:
    """Return the name and memory of the device; it must exist."""
    if not torch.cuda.is_available():
        raise RuntimeError("A CUDA device must be visible, got none; `--rehearse` runs all parts on the CPU.")
    found = torch.cuda.get_device_properties(0)
    return f"{torch.cuda.device_count()} x {found.name}, {found.total_memory / GIB:.0f} GiB"


def make_row(group: str, what: str, measured: Measurement, goal: float | None = None, at_most: bool = False) -> Row:
    """Return a row of the table, in the form of those of ``scripts/benchmark``."""
    told = {"group": group, "what": what, "goal": goal, "stretch": None, "at_most": at_most, "threads": None}
    return {"name": f"{group}: {what}", **told, **measured._asdict()}


def waiting(call: Callable[[], object], sizes: Sizes) -> Callable[[], object]:
    """Return a call that ends when the device has computed it."""

    def run() -> None:
        call()
        if sizes.device == "cuda":
            torch.cuda.synchronize()

    return run


def seconds(sizes: Sizes, call: Callable[[], object]) -> float:
    """Measure the seconds of a call until the device has computed it."""
    return spend(waiting(call, sizes)).wall


def tests(sizes: Sizes) -> list[Row]:
    """Run the tests marked gpu; the CPU stands in for the device in a rehearsal."""
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "pytest.mark.gpu" in path.read_text()]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        options = ["-q", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={report}"]
        command = [sys.executable, "-m", "pytest", *options, *(str(path.relative_to(ROOT)) for path in files)]
        environment = {**os.environ, "MONAI_MIL_TEST_DEVICE": sizes.device}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if not report.exists():
            raise RuntimeError(f"pytest failed:\n{done.stderr[-2000:]}")
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))  # noqa: S314 (just written by pytest)
    failed = [case.get("name") for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = sum(case.find("skipped") is not None for case in cases)
    run = len(cases) - skipped
    detail = {"tests": run, "skipped": skipped, "failed": failed}
    what = f"{run} tests marked gpu ({skipped} skipped): share that passes"
    return [make_row("Tests", what, Measurement(1 - len(failed) / max(run, 1), detail=detail), 1.0)]


def rates(sizes: Sizes) -> list[Row]:
    """Measure what the device can do: products of matrices and copies."""
    measure = partial(seconds, sizes)
    torch.set_float32_matmul_precision("highest")  # no TF32
    with torch.device(sizes.device):
        rows = {
            f"product of matrices in {name}, TFLOP/s": matrix_rate(measure, sizes.matrix, dtype) / 1e12
            for name, dtype in TYPES.items()
        }
        rows["copy, GB/s read and written"] = copy_rate(measure, sizes.copied) / 1e9
    return [make_row("The device", what, Measurement(value)) for what, value in rows.items()]


def cast(forward: Callable[[Tensor], Tensor], dtype: torch.dtype, device: str) -> Callable[[Tensor], Tensor]:
    """Return the forward pass in a type."""

    def run(x: Tensor) -> Tensor:
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            return forward(x).float()

    return run


def qgmil(sizes: Sizes, dtype: torch.dtype) -> dict[str, Callable[[Tensor], None]]:
    """Return training steps of QG-MIL as published and of ours, on the device."""
    net = QGMIL.from_preset("qgmil_base", 1024, 1).train()
    weights = published.published_weights(net)
    theirs = partial(published.qgmil, weights, dropout=0.25)
    return {
        "published": training(weights.values(), cast(theirs, dtype, sizes.device)),
        "ours": training(net.parameters(), cast(net, dtype, sizes.device)),
    }


def peak_gib(sizes: Sizes, call: Callable[[], object]) -> float:
    """Measure the peak of the device's memory during a call, or of the process in a rehearsal."""
    if sizes.device == "cpu":
        call()
        return resident("VmHWM") / GIB
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return (torch.cuda.max_memory_allocated() - before) / GIB


def largest_pair(sizes: Sizes, dtype: torch.dtype) -> tuple[int, Mapping[str, Callable[[], object]]]:
    """Return the steps on the largest bag, of at most ``instances``, that the published form can train on."""
    steps, instances = qgmil(sizes, dtype), sizes.instances
    while True:
        bag = torch.randn(1, instances, 1024)
        calls = {name: waiting(partial(step, bag), sizes) for name, step in steps.items()}
        try:
            calls["published"]()
        except torch.OutOfMemoryError:
            instances //= 2
            torch.cuda.empty_cache()
        else:
            return instances, calls


def train(sizes: Sizes, name: str) -> list[Row]:
    """Compare a training step of QG-MIL with the published form, in a type, and with the rate of the device."""
    group, dtype = f"QG-MIL base 1024->512, train step in {name}", TYPES[name]
    torch.set_float32_matmul_precision("highest")  # no TF32
    with torch.device(sizes.device):
        rate = matrix_rate(partial(seconds, sizes), sizes.matrix, dtype)
        instances, calls = largest_pair(sizes, dtype)
        what = f"N = {instances:,}"
        ratio = paired_ratio(calls, "published", "ours", sizes.repeats, clock="wall")
        memory = {f"{side}_gib": round(peak_gib(sizes, call), 3) for side, call in calls.items()}
        share = count_flops(calls["ours"]) / ratio.seconds["ours"]["wall"] / rate
    saved = Measurement(memory["published_gib"] / memory["ours_gib"], detail=memory)
    return [
        make_row(group, f"{what}: published / ours", ratio, GOALS[name]),
        make_row(group, f"{what}: memory, published / ours", saved),
        make_row(group, f"{what}: share of the measured rate of matrices", Measurement(share), 0.5),
    ]


def largest(sizes: Sizes) -> list[Row]:
    """Find the largest bag that QG-MIL trains on in bfloat16, before memory or the time of a step ends the search."""
    with torch.device(sizes.device):
        step, least, most = qgmil(sizes, torch.bfloat16)["ours"], sizes.instances // 2, 0
        spent, reason = 0.0, "memory"
        while not most or most > 1.1 * least:
            instances = (least + most) // 2 if most else 2 * least
            try:
                spent = seconds(sizes, partial(step, torch.randn(1, instances, 1024)))
            except torch.OutOfMemoryError:
                most = instances
                torch.cuda.empty_cache()
                continue
            least = instances
            if spent > sizes.seconds:
                reason = f"a step takes {spent:.1f} s"
                break
    what = f"largest bag, in thousands of instances, limit: {reason}"
    return [make_row("QG-MIL base 1024->512, train step in bfloat16", what, Measurement(least / 1e3))]


def scans(sizes: Sizes) -> list[Row]:
    """Compare training steps on a padded batch of small scans with compiled ones, which launch fewer kernels."""
    rows = []
    with torch.device(sizes.device):
        count = torch.linspace(5, 50, sizes.scans).long()
        mask = torch.arange(50) < count.unsqueeze(1)
        x = torch.randn(sizes.scans, 50, 768)
        for name, net in {"ABMIL 768": ABMIL(768, 1), "QG-MIL 768->64": QGMIL(768, 1, hidden_size=64)}.items():
            mode = "reduce-overhead" if sizes.backend == "inductor" else None  # CUDA graphs
            twin: Any = torch.compile(copy.deepcopy(net), backend=sizes.backend, mode=mode)
            sides = {"plain": net, "compiled": twin}
            calls = {side: waiting(partial(_masked(made), x, mask), sizes) for side, made in sides.items()}
            ratio = paired_ratio(calls, "plain", "compiled", sizes.repeats, clock="wall")
            rows.append(
                make_row("Small scans", f"{name}, {sizes.scans} padded scans, train step: plain / compiled", ratio)
            )
    return rows


def _masked(net: nn.Module) -> Callable[[Tensor, Tensor], None]:
    masks: list[Tensor] = []
    step = training(net.parameters(), lambda x: net(x, masks[-1]))

    def run(x: Tensor, mask: Tensor) -> None:
        masks[:] = [mask]
        step(x)

    return run


def encode(sizes: Sizes) -> list[Row]:
    """Measure the tiles of 224 a second from the memory of the host through MobileNetV2, whatever its weights."""
    tiles = torch.randint(256, (sizes.tiles, 3, 224, 224), dtype=torch.uint8)
    encoder = EncodeInstances(MobileNetV2Features().eval(), device=sizes.device)
    encoder(tiles[:2])
    spent = min(seconds(sizes, partial(encoder, tiles)) for _ in range(1 if sizes is SMALL else 3))
    return [make_row("Encoding", "tiles of 224 a second, MobileNetV2", Measurement(sizes.tiles / spent))]


PARTS = {
    "tests": Part(tests, 160),
    "rates": Part(rates, 30),
    **{name: Part(partial(train, name=name), 70) for name in TYPES},
    "largest": Part(largest, 60),
    "scans": Part(scans, 90),
    "encode": Part(encode, 40),
}
