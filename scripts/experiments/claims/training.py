"""Training of one variant on one cohort, and its answers on test scans."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.lesions.features import scan_items
from experiments.lesions.settings import Protocol
from experiments.lesions.training import TASK, answer, load_scan
from monai_mil_ext.apps.study import (
    Run,
    StudyMethod,
    TrainingSettings,
    parse_methods,
    read_study_model,
    train_bag_network,
    write_study_model,
)
from monai_mil_ext.data import InstanceSource, bag_sizes
from monai_mil_ext.handlers import AttentionAnchorHandler
from monai_mil_ext.losses import NSFKLLoss
from monai_mil_ext.metrics import instance_values
from monai_mil_ext.networks.layers import masked_log_softmax
from monai_mil_ext.networks.nets import QGMIL

__all__ = ["AnchoredMethod", "SoftmaxKLLoss", "answer_scans", "make_run", "train"]

Items = list[dict[str, Any]]
_COHORTS: dict[str, Any] = {}  # the last one, since all variants of a seed follow one another


class SoftmaxKLLoss(NSFKLLoss):
    """Divergence of attention from the softmax of the scores of an anchor: the loss of ASMIL without NSF."""

    def log_target(self, anchor_scores: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the logarithm of the softmax (B, N, S), without a gradient."""
        return masked_log_softmax(anchor_scores.detach(), mask)


@dataclass(frozen=True)
class AnchoredMethod(StudyMethod):
    """Method whose term on the attention has any target and momentum.

    Args:
        target: ``"sigmoid"``, the normalized sigmoid, or ``"softmax"``.
        momentum: momentum of the anchor; with 0 it is the present network.
    """

    target: str = "sigmoid"
    momentum: float = 0.999

    def make_anchor(self) -> AttentionAnchorHandler:
        """Create the handler of the anchor."""
        loss = SoftmaxKLLoss() if self.target == "softmax" else NSFKLLoss()
        return AttentionAnchorHandler(loss, beta=self.anchor, momentum=self.momentum)


def make_run(protocol: Protocol, cohort: str, name: str, spec: Mapping[str, Any], seed: int) -> Run:
    """Return the run of a variant on a cohort of the benchmark."""
    settings = {
        "cohort": {"name": cohort, "lesions": protocol.cohorts[cohort], "num_scans": protocol.num_scans, "seed": seed},
        "variant": name,
        "spec": dict(spec),
        "training": dict(protocol.training),
    }
    return Run(f"lesions/{name}/seed_{seed}", settings)


def train(run: Run, folder: Path, protocol: Protocol, data: Path) -> dict[str, Any]:
    """Train a variant as the benchmark trains its methods, and save its model in the folder of the run.

    Args:
        run: run of :py:func:`make_run`.
        folder: folder of the run.
        protocol: protocol of the benchmark.
        data: folder of the encoded scans.

    Returns:
        Epoch and validation loss of the weights, and the divergence of the attention of each epoch from that before.
    """
    spec, cohort = run.settings["spec"], run.settings["cohort"]
    parts, source = _read_cohort(protocol, cohort["name"], cohort["seed"], data)
    training = TrainingSettings(**run.settings["training"], seed=cohort["seed"])
    fold = train_bag_network(make_method(spec), {}, parts["train"], parts["val"], TASK, training)
    write_study_model(folder, [fold.network], TASK, run.settings["variant"], [source])
    changes = [row.get("attention_jsd", math.nan) for row in fold.history]
    changes = [value if math.isfinite(value) else None for value in changes]  # none before the first epoch
    return {"epoch": fold.epoch, "val_loss": fold.loss, "attention_jsd": changes}


def _read_cohort(protocol: Protocol, cohort: str, seed: int, data: Path) -> tuple[dict[str, Items], InstanceSource]:
    """Return the items of both parts, which state their sizes, and their source; kept until the seed changes."""
    key = (protocol.num_scans, cohort, seed, data)
    if _COHORTS.get("key") != key:
        scans = protocol.cohort(cohort, seed)
        parts = {part: scan_items([s for s in scans if s.split == part], data) for part in ("train", "val")}
        for items in parts.values():
            for item, size in zip(items, bag_sizes(items), strict=True):
                item["num_instances"] = size  # so that a training does not open each file again to count
        _COHORTS.update(key=key, value=(parts, InstanceSource.from_items(parts["train"])))
    found: tuple[dict[str, Items], InstanceSource] = _COHORTS["value"]
    return found


def make_method(spec: Mapping[str, Any]) -> AnchoredMethod:
    """Create the method of a variant."""
    (method,) = parse_methods(spec["network"])
    settings = {**method.settings, **spec.get("settings", {})}
    return AnchoredMethod(**{**vars(method), "settings": settings, **spec.get("anchor", {})})


def answer_scans(folder: Path, items: Sequence[Mapping[str, Any]], spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each scan as :py:func:`experiments.lesions.training.answer`.

    Of a QG-MIL, the row has ``received_auroc``, too: the slice AUROC of the attention that slices receive.
    """
    rows = answer(folder, items, spec)
    net: Any = read_study_model(folder).network
    if isinstance(net.net, QGMIL):
        for row, item in zip(rows, items, strict=True):
            row.update(_received(net, item) if row["label"] else {})
    return rows


def _received(net: Any, item: Mapping[str, Any]) -> dict[str, float]:
    bag = load_scan(item["image"])
    with torch.inference_mode():
        x = torch.as_tensor(bag["image"])[None]
        received = net.net.received_attention(((x - net.mean) / net.scale).to(x.dtype))[0]
    return {"received_auroc": instance_values(received.float(), bag["instance_label"])["instance_auroc"]}
