"""Rows of docs/benchmarks.md: compared values and goals."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from tests.benchmarks import batches, before_after, tile_reading
from tests.benchmarks.bag_reading import reading
from tests.benchmarks.epochs import disk_epoch, sampled_epoch, small_bags_epoch
from tests.benchmarks.flops import NO_BFLOAT16, describe_processor, has_bfloat16
from tests.benchmarks.handler_steps import beyond_arithmetic
from tests.benchmarks.measure import GIB, Measurement, allocator, paired_ratio, peak_memory, seconds_of
from tests.benchmarks.steps import NETWORKS, STEPS

__all__ = ["GROUPS", "ROWS", "Row", "group_of", "run"]

KIB = 2**10
QUADRATIC = {"SmTP": 2_500, "SequenceTransMIL": 5_000, "QGMIL": 2_500}  # whose time to train grows with N^2


class Row(NamedTuple):
    """Row of the table.

    Attributes:
        what: description of the value.
        measure: function that measures it.
        goal: value to reach.
        stretch: more ambitious goal.
        at_most: whether the goal is an upper limit.
        bfloat16: whether it means nothing on a processor without bfloat16 instructions.
    """

    what: str
    measure: Callable[[], Measurement]
    goal: float
    stretch: float | None = None
    at_most: bool = False
    bfloat16: bool = False


def timed(steps: str, over: str, under: str, instances: int, repeats: int = 15) -> Measurement:
    """Measure the ratio of the seconds of the processor of two calls of a step on one bag."""
    calls = STEPS[steps]().on(instances)
    return paired_ratio({name: calls[name] for name in calls if name in {over, under, "bound"}}, over, under, repeats)


def paired(steps: str, over: str, instances: int, repeats: int, under: str = "ours") -> Measurement:
    """Measure the ratio of the seconds of the processor of two implementations of a step."""
    return timed(steps, over, under, instances, repeats)


def memory_ratio(steps: str, over: str, under: str, instances: int) -> Measurement:
    """Measure the ratio of the memory that two calls need in addition to that of their processes."""
    used = {}
    for side in (over, under, "bound"):
        before, peak = peak_memory(steps, side, instances)
        used[side] = peak - before
    detail = {f"{side}_gib": round(size / GIB, 3) for side, size in used.items()}
    return Measurement(used[over] / used[under], bound=used[over] / used["bound"], detail=detail)


def growth(steps: str, side: str, instances: int) -> Measurement:
    """Measure the ratio of the peak memory of twice as many instances, both minus that of a single instance."""
    least, some, twice = (peak_memory(steps, side, n)[1] for n in (1, instances, 2 * instances))
    detail = {"an_instance_kib": round((twice - some) / instances / KIB, 2)}
    return Measurement((twice - least) / (some - least), detail=detail)


def forward_seconds(steps: str, instances: int, repeats: int) -> Measurement:
    """Measure the processor's seconds of forward passes on one bag; detail: their peak of memory."""
    _, peak = peak_memory(steps, "forward", instances)
    measured = seconds_of(STEPS[steps]().on(instances)["forward"], repeats)
    return measured._replace(detail={"resident_gib": round(peak / GIB, 2)})


def batched(over: str, under: str, largest: int, repeats: int = 6) -> Measurement:
    """Measure the ratio of the seconds of the processor of two ways to train on a batch of bags."""
    calls = batches.padded_bags(largest)
    return paired_ratio({name: calls[name] for name in (over, under)}, over, under, repeats)


def handled(terms: str, repeats: int = 15) -> Measurement:
    """Measure the ratio of the processor's seconds of a training step with and without two attention terms."""
    calls = batches.with_handlers(iterations=2)
    return paired_ratio({name: calls[name] for name in (terms, "plain", "least")}, terms, "plain", repeats)


def short(over: str, under: str, instances: int, repeats: int) -> Measurement:
    """Measure the ratio of the processor's seconds of two training steps of QG-MIL; detail: cosine of gradients."""
    calls = before_after.short_qgmil(instances)
    cosine = before_after.gradient_cosine(calls, over, under)
    measured = paired_ratio({name: calls[name] for name in (over, under)}, over, under, repeats)
    return measured._replace(detail={**measured.detail, "gradient_cosine": round(cosine, 5)})


def anchored() -> Measurement:
    """Measure the ratio of the processor's seconds of training steps with a plain and a fused optimizer."""
    return paired_ratio(before_after.anchored_asmil(1_000), "before", "ours", 25)


def padded_scans(hidden_size: int | None) -> Measurement:
    """Measure the ratio of the processor's seconds of training steps of a network and of its bare equations."""
    return paired_ratio(before_after.padded_scans(hidden_size), "ours", "bare", 25)


TRAIN, LOOK = "QG-MIL base 1024->512, train step, N = {:,}: published / ours", "QG-MIL base, forward, N = 5,000"
ROWS = {
    **{
        f"qgmil_train_{n}": Row(TRAIN.format(n), partial(timed, "qgmil_train", "published", "ours", n, k), *goals)
        for n, k, *goals in ((10_000, 6, 2.0), (4_000, 6, 1.2), (2_000, 15, 1.36), (500, 15, 1.1))
    },
    **{
        f"qgmil_train_memory_{n}": Row(
            f"QG-MIL base 1024->512, train step, N = {n:,}: peak memory over that of the process, published / ours",
            partial(memory_ratio, "qgmil_train", "published", "ours", n),
            *goals,
        )
        for n, *goals in ((10_000, 7.0, 8.0), (4_000, 4.0))
    },
    "qgmil_forward": Row(
        "QG-MIL base, forward, N = 10,000: published / ours",
        partial(timed, "qgmil_forward", "published", "ours", 10_000, 6),
        2.5,
        3.0,
    ),
    "qgmil_forward_memory": Row(
        "QG-MIL base, forward, N = 10,000: peak memory, published / ours",
        partial(memory_ratio, "qgmil_forward", "published", "ours", 10_000),
        9.5,
    ),
    "asmil_train": Row(
        "ASMIL 384->128, T = 16, train step with anchor, N = 10,000: published / ours",
        partial(timed, "asmil_train", "published", "ours", 10_000),
        6.5,
        8.0,
    ),
    "asmil_memory": Row(
        "ASMIL 384->128, T = 16, train step with anchor, N = 50,000: peak memory, published / ours",
        partial(memory_ratio, "asmil_train", "published", "ours", 50_000),
        5.0,
        6.0,
    ),
    **{
        f"{row}{suffix}": Row(
            f"{what}, as many weights, train step, N = {n:,}: {steps.split('_')[0]} / ours",
            partial(paired, steps, steps.split("_")[0], n, repeats),
            goal,
        )
        for row, steps, what, goal, sizes in (
            ("transmil", "torchmil_transmil", "TransMIL", 1.2, [("", 10_000, 6), ("_1000", 1_000, 15)]),
            ("abmil", "torchmil_abmil", "ABMIL", 0.95, [("", 10_000, 15), ("_1000", 1_000, 15)]),
            (
                "peer_transformer",
                "torchmil_transformer",
                "TransformerABMIL",
                1.2,
                [("_10000", 10_000, 6), ("", 1_000, 15)],
            ),
            ("peer_att", "monai_att", "`MILModel` att", 0.95, [("_10000", 10_000, 15), ("", 1_000, 15)]),
            # four blocks at 10,000 would take more than the ten minutes of a row
            ("peer_att_trans", "monai_att_trans", "`MILModel` att_trans", 1.2, [("_5000", 5_000, 6), ("", 1_000, 15)]),
        )
        for suffix, n, repeats in sizes
    },
    **{
        f"baseline_{name.rpartition('_')[2]}": Row(
            f"{what}, train step, N = 10,000: {other} / ours",
            partial(paired, name, other.split()[0], 10_000, repeats),
            0.95,
        )
        for name, what, other, repeats in (
            ("torchmil_clam", "CLAM-SB with its instance loss", "torchmil", 9),
            ("torchmil_dsmil", "DSMIL", "torchmil", 15),
            ("torchmil_dtfd", "DTFD-MIL (AFS), end to end", "torchmil", 9),
            ("additive", "Additive MIL", "plain equations", 25),
            ("recurrent", "Bidirectional GRU", "plain equations", 12),
        )
    },
    "bags_padded": Row(
        "QG-MIL, train step on 8 bags, 125-2,000 log-uniform: padded batch / ours",
        partial(batched, "padded", "ours", 2_000),
        2.0,
    ),
    "bags_single": Row(
        "QG-MIL, train step on 8 bags, 500-8,000 log-uniform: ours / sum of single bags",
        partial(batched, "ours", "single", 8_000),
        1.05,
        at_most=True,
    ),
    "fused_asmil": Row(
        "ASMIL 1024->512, train step with anchor, N = 1,000: AdamW as it was / fused", anchored, 1.35, 1.6
    ),
    **{
        f"padded_scans_{hidden_size or 768}": Row(
            f"ABMIL 768->{hidden_size or 768}, train step on 64 padded scans of 5 to 50 slices: ours / bare equations",
            partial(padded_scans, hidden_size),
            1.06,
            at_most=True,
        )
        for hidden_size in (128, None)
    },
    "qgmil_bf16": Row(
        "QG-MIL base 1024->512, train step, N = 4,000: float32 / bfloat16",
        partial(short, "float32", "bfloat16", 4_000, 6),
        1.6,
        bfloat16=True,
    ),
    "qgmil_layers": Row(
        "QG-MIL base 1024->512, train step, N = 2,000: RMS norms and dropout as torch composes them / ours",
        partial(short, "composed", "float32", 2_000, 15),
        1.03,
    ),
    "pool_export": Row(
        f"{LOOK}: with its attention / without",
        partial(timed, "qgmil_forward", "attention", "ours", 5_000, 6),
        1.1,
        at_most=True,
    ),
    "class_row_export": Row(
        "QG-MIL, 2 blocks, class token, N = 5,000: with its row / without",
        partial(timed, "qgmil_class_row", "attention", "ours", 5_000, 6),
        1.1,
        at_most=True,
    ),
    "received": Row(
        f"{LOOK}: received attention / forward",
        partial(timed, "qgmil_forward", "received", "ours", 5_000, 6),
        4.0,
        at_most=True,
    ),
    "rollout": Row(
        f"{LOOK}: roll-out / forward",
        partial(timed, "qgmil_forward", "rollout", "ours", 5_000, 6),
        4.0,
        at_most=True,
    ),
    **{
        name: Row(
            f"ABMIL 1024->512, trainer, N = 10,000: with Normal Guidance and anchor{how} / plain",
            partial(handled, terms),
            1.25,
            at_most=True,
            bfloat16=terms == "short",
        )
        for name, terms, how in (("handlers", "terms", ""), ("handlers_bf16", "short", " in bfloat16"))
    },
    "handlers_small": Row(
        "ABMIL 768, trainer, N = 30: Normal Guidance and anchor beyond their arithmetic, processor's ms a step",
        beyond_arithmetic,
        0.4,
        at_most=True,
    ),
    "musk1_epoch": Row(
        "MUSK1's shape, epoch of ABMIL: trainer's data path / loop on one padded tensor",
        small_bags_epoch,
        2.0,
        at_most=True,
    ),
    "disk_epoch": Row(
        "ABMIL, epoch of 40 bags (1,000-20,000 x 1,024 fp16) from disk, 2 workers: waiting for data / total",
        disk_epoch,
        0.1,
        at_most=True,
    ),
    **{
        f"sampled_epoch_{name}": Row(
            f"ABMIL, 2,048 rows of each of 24 bags (10,000 x 1,024 fp16), {how}, cold cache: waiting for data / total",
            partial(sampled_epoch, block_size=block_size),
            0.05,
            at_most=True,
        )
        for name, how, block_size in (("random", "at random", 1), ("blocks", "in blocks of 64", 64))
    },
    **{
        f"read_{layout.lower()}": Row(
            f"bag of 20,000 x 1,024 in half precision, warm cache: {what}",
            partial(reading, layout),
            goal,
            at_most=True,
        )
        for layout, what, goal in (
            ("ours", "our layout / its raw bytes", 1.3),
            ("TRIDENT", "TRIDENT's layout / bare h5py[:]", 1.1),
            ("CLAM", "CLAM's layout / bare h5py[:]", 1.1),
        )
    },
    **{
        f"tiles_{side}": Row(
            f"all tiles of 256 of a slide of 9,200 x 7,000, a second: {workers} / bare OpenSlide loop",
            partial(tile_reading.reading, side),
            goal,
        )
        for side, workers, goal in (("one", "one worker", 0.9), ("two", "two workers", 1.7))
    },
    "tiles_found": Row(
        "slide of 100,000 x 100,000, seconds from its thumbnail to the places of its tiles",
        tile_reading.finding,
        2.0,
        at_most=True,
    ),
    "tiles_memory": Row(
        "slide of 100,000 x 100,000, finding its tiles and reading 500 spread over it: resident GiB",
        tile_reading.memory,
        1.5,
        at_most=True,
    ),
    "tiles_encoded": Row(
        "160 tiles of 224, MobileNetV2 on the CPU, 1 worker: waiting for tiles / total",
        tile_reading.encoding,
        0.1,
        at_most=True,
    ),
    **{
        f"inference_{name.lower()}": Row(
            f"{name} 1,024 features, forward, N = {n:,}, seconds of the processor (resident memory: at most 16 GiB)",
            partial(forward_seconds, f"million_{name}", n, repeats),
            goal,
            at_most=True,
        )
        # QG-MIL takes 900 s for 100,000 instances if it takes 81 s for 30,000
        for name, n, goal, repeats in (
            ("ABMIL", 1_000_000, 60.0, 2),
            ("ASMIL", 1_000_000, 60.0, 2),
            ("QGMIL", 30_000, 81.0, 1),
        )
    },
    **{
        f"chunks_{name.lower()}_{side}": Row(
            f"{name} 1,024 features, forward, N = 100,000: processor's seconds, whole in float32 / chunks in {dtype}",
            partial(paired, f"million_{name}", "whole", 100_000, 9, side),
            goal,
            bfloat16=side == "bfloat16",
        )
        for name, side, dtype, goal in (
            ("ABMIL", "forward", "float32", 1.15),
            ("ABMIL", "bfloat16", "bfloat16", 2.2),
            ("ASMIL", "forward", "float32", 1.1),
            ("ASMIL", "bfloat16", "bfloat16", 1.8),
        )
    },
    **{
        f"memory_{name.lower()}_{side}": Row(
            f"{name} 384 features, {side}: memory of {2 * n:,} instances / of {n:,}",
            partial(growth, f"linear_{name}", side, n),
            2.2,
            at_most=True,
        )
        for name in NETWORKS
        for side in ("forward", "train")
        for n in (QUADRATIC.get(name, 20_000),)
    },
}


GROUPS = {  # beginnings of the names of their rows
    "Published form / ours": ("qgmil_train", "qgmil_forward", "asmil_"),
    "Other packages / ours": ("transmil", "abmil", "baseline_", "peer_"),
    "Ways to train": ("bags_", "padded_", "handlers", "fused_", "qgmil_bf16", "qgmil_layers"),
    "Costs of attention": ("pool_", "class_row", "received", "rollout"),
    "Reading": ("musk1", "disk", "sampled_", "read_", "tiles_"),
    "Large bags": ("inference_", "chunks_"),
    "Growth of memory": ("memory_",),
}


def group_of(name: str) -> str:
    """Return the heading under which a row is listed."""
    return next((group for group, names in GROUPS.items() if name.startswith(names)), "Other costs")


def run(name: str) -> dict[str, object]:
    """Measure a row and return it with its goal and the machine, or the reason why it is ``unmeasured`` here."""
    torch.manual_seed(0)
    row = ROWS[name]
    if row.bfloat16 and not has_bfloat16():
        return {"name": name, "unmeasured": NO_BFLOAT16}
    record = {"name": name, "what": row.what, "goal": row.goal, "stretch": row.stretch, "at_most": row.at_most}
    return {**record, **row.measure()._asdict(), "allocator": allocator(), "machine": describe_processor()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(sys.argv[1])) + "\n")
