"""QG-MIL and other networks on MNIST-bags with fixed features: one setting, heads only.

A digit is its first principal components, which the training digits determine without labels. Bags, settings and
number of epochs are those of ``protocol.json``; the last epoch counts, so nothing is selected, and no training reads a
test digit. Test bags of all finished trainings are answered at once, and each read is logged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA

from experiments.classical.predictions import build_network, train_network
from experiments.lesions.reads import log_reads
from experiments.mnist_bags.prepare import PARTS, prepare_digits
from experiments.workflows import RESULTS
from monai_mil_ext.apps.study import Run, StudyRunner
from monai_mil_ext.data import FeatureStatistics, LabeledPoolBagDataset
from monai_mil_ext.metrics import attention_mass, instance_values
from monai_mil_ext.networks.nets import QGMIL, BagNet
from monai_mil_ext.utils import BagKeys, atomic_path, head_mean, load_json, write_json

from . import classical
from .classical import config_of, turns
from .cost import Cost
from .settings import read_settings
from .statements import FULL_QGMIL, PLAIN_QGMIL, Statement

__all__ = [
    "LOG",
    "answer_all",
    "answer_bags",
    "draw_bags",
    "read_answers",
    "read_cost",
    "run_all",
    "runs",
    "statements",
    "train",
]

DATA = Path(__file__).parents[1] / "mnist_bags" / "data"
LOG = RESULTS / "mnist_bags_reads.jsonl"
WEIGHTS = "model.pt"
Bags = Sequence[Mapping[str, Any]]


def statements() -> list[Statement]:
    """Return the claims on MNIST-bags."""
    even = partial(Statement, "QG-MIL", published="in words", metric="entropy_ratio", plus=(FULL_QGMIL,))
    return [
        *classical.statements("MNIST-bags: "),
        even("MNIST-bags: attention is more even than that of ABMIL", minus=("ABMIL",)),
        even("MNIST-bags: attention is more even with the four parts", minus=(PLAIN_QGMIL,)),
    ]


def runs() -> list[Run]:
    """List the trainings, seed by seed in each turn."""
    options = dict(read_settings()["digits"])
    seeds = options.pop("seeds")
    configs = {variant: config_of(variant) for turn in turns() for variant in turn}
    return [
        Run(
            f"digits/{variant}/seed_{seed}",
            {**options, "variant": variant, "seed": seed, "config": configs[variant]},
        )
        for turn in turns()
        for seed in seeds
        for variant in turn
    ]


def train(run: Run, folder: Path, data: Path = DATA) -> dict[str, Any]:
    """Train a network on the training bags, and save its weights."""
    bags, _ = draw_bags(data, run.settings, "train")
    net = train_network(run.settings["config"], bags, run.settings["seed"])
    with atomic_path(folder / WEIGHTS) as temporary:
        torch.save(net.state_dict(), temporary)
    return {}


def draw_bags(data: Path, options: Mapping[str, Any], part: str) -> tuple[Bags, Bags]:
    """Return the training bags of a seed and those of a part, standardized by the training bags.

    Args:
        data: folder of the digits.
        options: ``seed``, ``components``, ``num_train`` and ``num_test``.
        part: ``"train"``, ``"val"`` or ``"test"``, whose digits no other part has.
    """
    pools = _components(data, options["components"])
    seed = 10 * options["seed"]  # as in the experiment that trains the encoder, too
    drawn = {"train": _draw(pools["train"], options["num_train"], seed + 1)}
    if part != "train":
        drawn[part] = _draw(pools[part], options["num_test"], seed + 1 + PARTS.index(part))
    statistics = FeatureStatistics.from_items(drawn["train"])
    mean, scale = torch.from_numpy(statistics.mean), torch.from_numpy(statistics.scale)
    first, second = (
        [{**bag, "image": (bag["image"] - mean) / scale} for bag in bags] for bags in (drawn["train"], drawn[part])
    )
    return first, second


def _draw(pool: tuple[torch.Tensor, torch.Tensor], number: int, seed: int) -> list[dict[str, Any]]:
    bags = LabeledPoolBagDataset(*pool, number, seed)
    return [{**bags[k], "label": int(bags[k]["label"])} for k in range(number)]


@cache
def _components(data: Path, number: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return principal components and classes of all digits, by part; the components are those of the training part."""
    with np.load(prepare_digits(data)) as file:
        digits = {part: (file[f"{part}_images"], file[f"{part}_classes"]) for part in PARTS}
    flat = {part: images.reshape(len(images), -1).astype(np.float32) / 255 for part, (images, _) in digits.items()}
    pca = PCA(number, svd_solver="covariance_eigh").fit(flat["train"])
    return {part: (torch.from_numpy(pca.transform(flat[part])), torch.from_numpy(digits[part][1])) for part in PARTS}


def run_all(folder: Path, data: Path = DATA) -> None:
    """Train what is not finished."""
    runner = _runner(folder, data)
    for run in runs():
        runner.run_all([run])


def answer_all(folder: Path, again: str | None = None, data: Path = DATA, log: Path = LOG) -> None:
    """Answer the test bags by all finished trainings, and keep the rows; what was answered is not answered again.

    Args:
        folder: folder of the trainings.
        again: reason to read test bags that were read before.
        data: folder of the digits.
        log: log of the reads.
    """
    runner, file = _runner(folder, data), folder / "digits" / "answers.json"
    known = load_json(file) if file.exists() else {}
    dates = {run.name: record["date"] for run in runs() if (record := runner.read(run)) is not None}
    new = [run for run in runs() if run.name in dates and known.get(run.name, {}).get("date") != dates[run.name]]
    if not new:
        return
    seeds = sorted({run.settings["seed"] for run in new})
    log_reads([("digits", seed) for seed in seeds], f"{len(new)} trainings on fixed features", again, log)
    for run in new:
        bags = _test_bags(data, run.settings["seed"])
        net = _load(runner.run_folder(run) / WEIGHTS, run, bags[0]["image"].shape[1])
        known[run.name] = {"date": dates[run.name], "rows": answer_bags(net, bags)}
    write_json(file, {name: entry for name, entry in known.items() if name in dates})


def answer_bags(net: BagNet, bags: Bags) -> list[dict[str, Any]]:
    """Return a row for each bag: label, probability and entropy of the attention, and how well it ranks the instances.

    The row of a positive bag has ``instance_auroc``, and with a QG-MIL ``received_auroc``, of the attention that
    instances receive.
    """
    rows = []
    for bag in bags:
        with torch.inference_mode():
            output = net.forward_bag(bag["image"][None])
        row = {"label": bag["label"], "probability": float(output.logits.double().softmax(1)[0, 1])}
        if output.attention is not None:
            scores, truth = head_mean(output.attention[0]).float(), bag[BagKeys.INSTANCE_LABEL]
            row["entropy_ratio"] = attention_mass(scores, top=(), quantiles=())["entropy_ratio"]
            if bag["label"]:
                row["instance_auroc"] = instance_values(scores, truth)["instance_auroc"]
        if bag["label"] and isinstance(net, QGMIL):
            with torch.inference_mode():
                received = net.received_attention(bag["image"][None])[0].float()
            row["received_auroc"] = instance_values(received, bag[BagKeys.INSTANCE_LABEL])["instance_auroc"]
        rows.append(row)
    return rows


def read_answers(folder: Path) -> dict[str, dict[int, list[dict[str, Any]]]]:
    """Return the kept rows, by variant and seed."""
    file = folder / "digits" / "answers.json"
    known = load_json(file) if file.exists() else {}
    found: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for run in runs():
        if run.name in known:
            found.setdefault(run.settings["variant"], {})[run.settings["seed"]] = known[run.name]["rows"]
    return found


def read_cost(folder: Path, data: Path = DATA) -> Cost:
    """Return the cost of what is finished and of the rest."""
    runner = _runner(folder, data)
    return Cost.of([("", runner.read(run)) for run in runs()])


@cache
def _test_bags(data: Path, seed: int) -> Bags:
    return draw_bags(data, {**read_settings()["digits"], "seed": seed}, "test")[1]


def _load(file: Path, run: Run, in_features: int) -> BagNet:
    net = build_network(run.settings["config"], in_features, run.settings["seed"])
    net.load_state_dict(torch.load(file, weights_only=True))
    return net.eval()


def _runner(folder: Path, data: Path) -> StudyRunner:
    return StudyRunner(folder, partial(train, data=data), threads=1)
