"""Profiles of both sides of rows whose goal is missed or open: what the seconds of the processor are spent on.

``python -m tests.benchmarks.profiles NAME`` prints one line of JSON; ``scripts/benchmark --profiles`` writes
docs/results/profiles.json.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from monai.data import DataLoader, Dataset
from monai.engines import PrepareBatchExtraInput, SupervisedEvaluator
from monai.transforms import Compose
from torch.utils._python_dispatch import TorchDispatchMode

from monai_mil_ext.data import BagCollate, write_bag
from monai_mil_ext.inferers import BagInferer
from monai_mil_ext.networks import nets
from monai_mil_ext.transforms import BagProbabilitiesd, LoadBagd, UnpackBagOutputd
from tests.benchmarks import batches, handler_steps
from tests.benchmarks.flops import flop_counter, matrix_rate
from tests.benchmarks.measure import spend
from tests.benchmarks.steps import STEPS

__all__ = ["PARTS", "PROFILES", "Kernels", "Profile", "part_of", "parts_of", "run"]

Calls = Mapping[str, Callable[[], object]]
KERNELS = ("products", "attention", "elementwise", "copies", "optimizer")
PARTS = (*KERNELS, "pages", "Python")
WORDS = {  # of the names of kernels, the first that fits
    "optimizer": ("_fused_", "_foreach_", "addcdiv", "addcmul"),
    "attention": ("scaled_dot_product", "softmax", "bmm"),
    "products": ("addmm", "mm", "linear", "addmv", "mv", "dot"),
    "copies": ("copy", "clone", "cat", "stack", "index", "gather", "scatter", "select_backward", "slice_backward",
               "zeros", "fill", "split_with_sizes_copy", "repeat", "pad"),
}  # fmt: skip


class Profile(NamedTuple):
    """Row of the table of speed: both of its sides and its goal.

    Attributes:
        what: description of the row.
        make: function that returns the calls.
        over: side whose seconds are divided, or from which the others are subtracted.
        under: the other side.
        ours: the side of this package.
        goal: value to reach, a ratio or seconds a step.
        compared: ``ratio`` of the sides, seconds ``beyond`` the other side, or seconds of ours ``alone``.
        at_most: whether the goal is an upper limit.
        steps: steps, or bags, of a call.
        repeats: profiled calls, of which the median is taken.
        without: for a side, the call whose seconds are subtracted from its own.
    """

    what: str
    make: Callable[[], Calls]
    over: str
    under: str
    ours: str
    goal: float
    compared: str = "ratio"
    at_most: bool = False
    steps: int = 1
    repeats: int = 7
    without: Mapping[str, str] = {}


class Kernels(TorchDispatchMode):
    """Sum of the user seconds of kernels by part.

    Args:
        cost: seconds that measuring takes at each kernel, which are subtracted.
    """

    def __init__(self, cost: float = 0.0) -> None:
        super().__init__()
        self.spent: dict[str, float] = defaultdict(float)
        self._cost = cost

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a kernel and add its seconds to its part."""
        result: list[Any] = []
        seconds = spend(lambda: result.append(func(*args, **(kwargs or {})))).user
        self.spent[part_of(func)] += seconds - self._cost
        return result[0]


def part_of(kernel: Any) -> str:
    """Return the part to which a kernel belongs; views, which compute nothing, belong to Python."""
    if kernel.is_view:
        return "Python"
    name = kernel.overloadpacket.__name__
    return next((part for part, words in WORDS.items() if any(word in name for word in words)), "elementwise")


def cost_of_measuring(calls: int = 2_000) -> float:
    """Measure the seconds that :py:class:`Kernels` sees at a kernel that computes nothing."""
    x = torch.zeros(1)
    with Kernels() as kernels:
        for _ in range(calls):
            x.view(-1)
    return sum(kernels.spent.values()) / calls


def parts_of(
    call: Callable[[], object], repeats: int, steps: int = 1, cost: float = 0.0
) -> tuple[dict[str, float], float]:
    """Measure the median seconds of each part of a step, and the floating-point operations of its products.

    What no kernel took is Python and the calls of kernels; pages are created in kernels and given back outside of them.
    """
    turns = []
    for turn in range(repeats + (repeats > 1)):
        whole = spend(call)
        with Kernels(cost) as kernels, flop_counter() as counter:  # the counter is outside of what is measured
            call()
        spent = {part: max(0.0, kernels.spent[part]) / steps for part in KERNELS}
        spent["pages"] = whole.system / steps
        spent["Python"] = max(0.0, whole.user / steps - sum(spent[part] for part in KERNELS))
        turns += [spent] if turn or repeats == 1 else []
    parts = {part: round(median(turn[part] for turn in turns), 7) for part in PARTS}
    return parts, counter.get_total_flops() / steps


def of_step(name: str, over: str, under: str, instances: int) -> Calls:
    """Return both sides of a row on one bag, after a call of each on a small one."""
    step = STEPS[name]()
    for side in (over, under):
        step.calls[side](step.bag(10))
    calls, bag = step.calls, step.bag(instances)
    return {side: partial(calls[side], bag) for side in (over, under)}


def of_cohort(bags: int = 4, instances: int = 5_000) -> Calls:
    """Return the inference of bags in files by MONAI's evaluator, and the bare forward passes on float32 tensors."""
    net = nets.ABMIL(1024, 2, hidden_size=512, attention_size=256).eval()
    features, folder = torch.randn(instances, 1024).half(), Path(tempfile.mkdtemp())
    items = [{"image": str(folder / f"{i}.h5")} for i in range(bags)]
    for item in items:
        write_bag(item["image"], {"features": features.numpy()})
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items, LoadBagd("image")), batch_size=1, collate_fn=BagCollate("image")),
        network=nets.BagOutputWrapper(net),
        inferer=BagInferer(),
        prepare_batch=PrepareBatchExtraInput({"mask": "mask"}),
        postprocessing=Compose([UnpackBagOutputd("pred"), BagProbabilitiesd("pred")]),
    )
    bag = features.float().unsqueeze(0)

    def forward() -> None:
        with torch.no_grad():
            for _ in items:
                net.forward_bag(bag)

    return {"cohort": evaluator.run, "forward": forward}


def run(name: str, repeats: int | None = None) -> dict[str, Any]:
    """Profile both sides of a row; ``least`` is what the products that both need take at the measured rate."""
    torch.manual_seed(0)
    row, cost = PROFILES[name], cost_of_measuring()
    calls = row.make()
    found, flops = {}, {}
    for side in dict.fromkeys((row.over, row.under, *row.without.values())):
        found[side], flops[side] = parts_of(calls[side], repeats or row.repeats, row.steps, cost)
    for side, plain in row.without.items():
        found[side] = {part: round(found[side][part] - found[plain][part], 7) for part in PARTS}
        flops[side] -= flops[plain]
    rate = matrix_rate(lambda call: spend(call).processor, 2048, torch.float32)
    known = {key: getattr(row, key) for key in ("what", "over", "under", "ours", "goal", "compared", "at_most")}
    least = round(min(flops[row.over], flops[row.under]) / rate, 7)
    sides = {side: found[side] for side in (row.over, row.under)}
    return {"name": name, **known, "sides": sides, "least": least, "gflops": round(rate / 1e9, 1)}


def _step(what: str, name: str, over: str, instances: int, goal: float, under: str = "ours", **more: Any) -> Profile:
    make = partial(of_step, name, over, under, instances)
    return Profile(f"{what}, N = {instances:,}", make, over, under, under, goal, **more)


STEP = "QG-MIL, train step"
PROFILES = {
    "qgmil_train_10000": _step(STEP, "qgmil_train", "published", 10_000, 2.0, repeats=1),
    "qgmil_train_500": _step(STEP, "qgmil_train", "published", 500, 1.1, repeats=9),
    "peer_transformer": _step("TransformerABMIL, train step", "torchmil_transformer", "torchmil", 1_000, 1.2),
    "peer_att_trans": _step("`MILModel` att_trans, train step", "monai_att_trans", "monai", 1_000, 1.2, repeats=5),
    "peer_att": _step("`MILModel` att, train step", "monai_att", "monai", 1_000, 0.95),
    "chunks_abmil_forward": _step(
        "ABMIL, forward, whole / in chunks", "million_ABMIL", "whole", 100_000, 1.15, "forward", repeats=3
    ),
    "bags_single": Profile(
        "QG-MIL, 8 bags of 500 to 8,000, train step",
        batches.padded_bags,
        "ours",
        "single",
        "ours",
        1.05,
        at_most=True,
        repeats=1,
    ),
    "handlers_small": Profile(
        "ABMIL, N = 30: Normal Guidance and anchor, a step",
        partial(handler_steps.epochs, 100),
        "trainer_both",
        "loop_both",
        "trainer_both",
        4e-4,
        "beyond",
        at_most=True,
        steps=100,
        without={"trainer_both": "trainer", "loop_both": "loop"},
    ),
    "cohort": Profile(
        "ABMIL, inference of a bag of 5,000 x 1,024 in a file",
        of_cohort,
        "cohort",
        "forward",
        "cohort",
        0.1,
        "alone",
        at_most=True,
        steps=4,
    ),
}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(sys.argv[1])) + "\n")
