"""Parts of a training step: the seconds of the processor of each, beside what the hardware can do.

``python -m tests.benchmarks.step_parts`` prints one line of JSON; ``scripts/benchmark --parts`` writes it to
docs/results/time.json.
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest import mock

import torch
from monai.engines import SupervisedTrainer
from torch import Tensor, nn
from torch.nn import functional

from monai_mil_ext.data import read_bag, write_bag
from monai_mil_ext.handlers import AttentionPriorHandler, EMATeacher
from monai_mil_ext.losses import NormalGuidanceLoss, NSFKLLoss
from monai_mil_ext.networks import nets
from tests.benchmarks.baselines import adamw
from tests.benchmarks.flops import copy_rate, count_flops, has_bfloat16, matrix_rate
from tests.benchmarks.measure import Measurement, paired_ratio, spend
from tests.benchmarks.steps import BETA, MOMENTUM, forward_only, training

__all__ = ["PARTS", "STEPS", "hardware", "parts_of", "tried"]

PARTS = ("data", "forward", "attention", "loss terms", "anchor", "backward", "optimizer", "handlers")
LABEL = torch.ones(1, dtype=torch.long)
FEW = 30


class Clock:
    """Sum of the seconds of the processor by part; a part within another one is counted apart."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def __call__(self, part: str, call: Callable[[], Any]) -> Any:
        """Return the result of a call, whose seconds are added to a part."""
        result: list[Any] = []
        self._inner.append(0.0)
        seconds = spend(lambda: result.append(call())).processor
        self.spent[part] += seconds - self._inner.pop()
        self._inner[-1] += seconds
        return result[0]

    @contextmanager
    def counting(self, part: str, places: Sequence[tuple[Any, str]]) -> Iterator[None]:
        """Add calls of functions, by the objects that have them and their names, to a part."""
        with ExitStack() as stack:
            for owner, name in places:
                plain = getattr(owner, name)
                timed = lambda *args, plain=plain, **options: self(part, partial(plain, *args, **options))  # noqa: E731
                stack.enter_context(mock.patch.object(owner, name, timed))
            yield


class Step(NamedTuple):
    """Training step: a network, what its attention is computed by, the loss of its outputs, and its anchor."""

    what: str
    make: Callable[[], nets.BagNet]
    attention: Callable[[Any], list[tuple[Any, str]]]
    instances: int
    guided: bool = False
    anchored: bool = False


STEPS = {
    "qgmil": Step(
        "QG-MIL base 1024->512",
        partial(nets.QGMIL.from_preset, "qgmil_base", 1024, 2),
        lambda net: [(functional, "scaled_dot_product_attention"), (net.attend, "forward")],
        2_000,
    ),
    "asmil": Step(
        "ASMIL 384->128, T = 16, with anchor",
        partial(nets.ASMIL, 384, 2, num_tokens=16),
        lambda net: [(net.attend, name) for name in ("keys", "score", "read")],
        10_000,
        anchored=True,
    ),
    "abmil": Step(
        "ABMIL 1024->512 with Normal Guidance",
        partial(nets.ABMIL, 1024, 2, hidden_size=512),
        lambda net: [(net.attend, "forward")],
        10_000,
        guided=True,
    ),
}


def parts_of(step: Step, instances: int, repeats: int = 7) -> dict[str, Any]:
    """Measure the median seconds of each part of a step, its floating-point operations and those a second."""
    net = step.make().train()
    optimizer, anchor = adamw(net.parameters()), EMATeacher(net, "score_tap") if step.anchored else None
    turns = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bag.h5"
        write_bag(path, {"features": torch.randn(instances, net.in_features).half().numpy()})
        for turn in range(repeats + 1):
            clock = Clock()
            bag = run(step, net, optimizer, anchor, lambda: read_bag(path)["features"].float().unsqueeze(0), clock)
            turns += [clock.spent] if turn else []
    if step.guided:
        handlers = beyond(net, bag[:, :FEW], repeats)  # it does not depend on N, and is small beside a large step
        for spent in turns:
            spent["handlers"] = handlers
    parts = {name: round(median(t[name] for t in turns), 6) for name in PARTS if any(name in t for t in turns)}
    flops = count_flops(lambda: net(bag).sum().backward())
    seconds = sum(parts[name] for name in ("forward", "attention", "backward"))
    return {"what": f"{step.what}, N = {instances:,}", "parts": parts, "flops": flops, "rate": flops / seconds}


def run(
    step: Step, net: nets.BagNet, optimizer: Any, anchor: EMATeacher | None, load: Callable[[], Tensor], clock: Clock
) -> Tensor:
    """Run a training step part by part, and return its bag."""
    bag: Tensor = clock("data", load)
    optimizer.zero_grad()
    with clock.counting("attention", step.attention(net)):
        out = clock("forward", partial(net.forward_bag, bag))
    target = None if anchor is None else clock("anchor", partial(anchor.scores, bag))

    def loss() -> Tensor:
        total = functional.cross_entropy(out.logits, LABEL)
        total = total + NormalGuidanceLoss()(out.attention) if step.guided else total
        return total if target is None else total + BETA * NSFKLLoss()(out.scores, target)

    clock("backward", clock("loss terms", loss).backward)
    clock("optimizer", optimizer.step)
    if anchor is not None:
        clock("anchor", partial(anchor.update, net, MOMENTUM))
    return bag


def beyond(net: nn.Module, bag: Tensor, repeats: int, iterations: int = 20) -> float:
    """Measure the seconds a step of MONAI's trainer with Normal Guidance beyond those of the same loop by hand."""
    net, twin = copy.deepcopy(net), copy.deepcopy(net)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=[{"image": bag, "label": LABEL}] * iterations,
        network=net,
        optimizer=adamw(net.parameters()),
        loss_function=nn.CrossEntropyLoss(),
        train_handlers=[AttentionPriorHandler(NormalGuidanceLoss())],
        decollate=False,
    )
    optimizer, guidance = adamw(twin.parameters()), NormalGuidanceLoss()

    def loop() -> None:
        for _ in range(iterations):
            optimizer.zero_grad()
            out = twin.forward_bag(bag)  # type: ignore[operator]
            (functional.cross_entropy(out.logits, LABEL) + guidance(out.attention)).backward()
            optimizer.step()

    def epoch() -> None:
        trainer.state.epoch = trainer.state.iteration = 0
        trainer.run()

    seconds = paired_ratio({"trainer": epoch, "loop": loop}, "trainer", "loop", repeats).seconds
    trained, looped = (seconds[side]["user"] + seconds[side]["system"] for side in ("trainer", "loop"))
    return (trained - looped) / iterations


def hardware(size: int = 2048, copied: int = 2**28) -> dict[str, float]:
    """Measure what the processor can do: products of matrices, in bfloat16 if it has such instructions, and copies."""

    def seconds(call: Callable[[], object]) -> float:
        return spend(call).processor

    kinds = ("float32", "bfloat16") if has_bfloat16() else ("float32",)
    rates = {f"{n}_gflops": matrix_rate(seconds, size, getattr(torch, n)) / 1e9 for n in kinds}
    return {name: round(rate, 1) for name, rate in {**rates, "copy_gb": copy_rate(seconds, copied) / 1e9}.items()}


def tried(instances: int = 1_000, repeats: int = 15, backend: str = "inductor") -> dict[str, Measurement]:
    """Measure what was expected to make a step faster: ratios of plain to changed."""
    net, q = nets.QGMIL.from_preset("qgmil_base", 1024, 1).train(), torch.randn(1, 8, 4 * instances, 64)
    x, small, short = torch.randn(1, instances, 1024), nets.ABMIL(768, 1).eval(), q.bfloat16()
    compiled = torch.compile(copy.deepcopy(net), backend=backend)
    scan = torch.randn(1, 30, 768)

    def inference() -> None:
        with torch.inference_mode():
            small(scan)

    half = f"fused attention in bfloat16, 8 x {4 * instances:,} x 64, forward"
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        f"`torch.compile`, QG-MIL, train step, N = {instances:,}": (
            partial(training(net.parameters(), net), x),
            partial(training(compiled.parameters(), compiled), x),
        ),
        half: (
            partial(functional.scaled_dot_product_attention, q, q, q),
            partial(functional.scaled_dot_product_attention, short, short, short),
        ),
        "`torch.inference_mode` instead of `no_grad`, ABMIL 768, N = 30": (
            partial(forward_only(small), scan),
            inference,
        ),
    }
    if not has_bfloat16():
        del pairs[half]
    return {
        what: paired_ratio({"plain": a, "changed": b}, "plain", "changed", repeats) for what, (a, b) in pairs.items()
    }


def main() -> None:
    """Print what is measured."""
    torch.manual_seed(0)
    steps = [parts_of(step, step.instances) for step in STEPS.values()]
    attempts = [{"what": what, **found._asdict()} for what, found in tried().items()]
    sys.stdout.write(json.dumps({"rows": steps, "hardware": hardware(), "tried": attempts}) + "\n")


if __name__ == "__main__":
    main()
