"""Training of one method on one cohort, and its answers on test scans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from monai_mil_ext.apps.study import (
    Run,
    StudyMethod,
    Task,
    TrainingSettings,
    parse_methods,
    read_study_model,
    train_bag_network,
    write_study_model,
)
from monai_mil_ext.data import InstanceSource
from monai_mil_ext.metrics import attention_mass, instance_values
from monai_mil_ext.networks.nets import BagNet
from monai_mil_ext.transforms import LoadBagd
from monai_mil_ext.utils import head_mean

from .features import scan_items
from .settings import Protocol
from .supervised import train_slice_supervised

__all__ = ["TASK", "answer", "load_scan", "make_run", "train"]

TASK = Task("multilabel", ["lesion"])  # one logit, so that a network has one attention
LOAD = LoadBagd(["image", "instance_label"])
Items = Sequence[Mapping[str, Any]]


def make_run(protocol: Protocol, cohort: str, method: str, seed: int) -> Run:
    """Return the run of a method on a cohort."""
    settings = {
        "cohort": {"name": cohort, "lesions": protocol.cohorts[cohort], "num_scans": protocol.num_scans, "seed": seed},
        "method": method,
        "spec": dict(protocol.methods[method]),
        "training": dict(protocol.training),
        "drawing": asdict(protocol.drawing),
    }
    return Run(f"{cohort}/{method}/seed_{seed}", settings)


def train(run: Run, folder: Path, protocol: Protocol, data: Path) -> dict[str, Any]:
    """Train a method, and save its model in the folder of the run, where inference finds it.

    Args:
        run: run of :py:func:`make_run`.
        folder: folder of the run.
        protocol: protocol, for the scans of the cohort.
        data: folder of the encoded scans.

    Returns:
        Epoch and validation value of the weights.
    """
    spec, seed = run.settings["spec"], run.settings["cohort"]["seed"]
    scans = protocol.cohort(run.settings["cohort"]["name"], seed)
    parts = {part: scan_items([s for s in scans if s.split == part], data) for part in ("train", "val")}
    (method,) = parse_methods(spec["network"])
    method = StudyMethod(**{**vars(method), "settings": {**method.settings, **spec.get("settings", {})}})
    training = TrainingSettings(**run.settings["training"], seed=seed)
    if spec.get("slice_labels"):
        network, record = train_slice_supervised(method, parts["train"], parts["val"], TASK, training)
    else:
        fold = train_bag_network(method, {}, parts["train"], parts["val"], TASK, training)
        network, record = fold.network, {"epoch": fold.epoch, "val_loss": fold.loss}
    source = InstanceSource.from_items(parts["train"])
    write_study_model(folder, [network], TASK, run.settings["method"], [source])
    return record


def answer(folder: Path, items: Items, spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each scan: label, probability, and how well the slices are ranked.

    A scan with a lesion also has ``scores`` and ``instance_label``, by which its slices were ranked.

    Args:
        folder: folder of a trained model.
        items: items of the scans.
        spec: method; ``rank_by`` is ``"attention"``, the default, or ``"scores"``.
    """
    net: BagNet = read_study_model(folder).network
    return [_row(net, item, spec.get("rank_by", "attention")) for item in items]


@lru_cache(maxsize=64)
def load_scan(path: str) -> dict[str, Any]:
    """Read the features and slice labels of a scan; those of a test set are kept for the next network."""
    loaded: dict[str, Any] = LOAD({"image": path})
    return loaded


def _row(net: BagNet, item: Mapping[str, Any], rank_by: str) -> dict[str, Any]:
    bag = load_scan(item["image"])
    with torch.inference_mode():
        output = net.forward_bag(bag["image"][None])
    (label,) = item["label"]
    row = {"case_id": item["case_id"], "patient": item["patient"], "label": label}
    row |= {"probability": float(output.logits.sigmoid())}
    ranked = getattr(output, rank_by)
    if ranked is None:
        return row
    scores, truth = head_mean(ranked[0]).float(), bag["instance_label"]
    values = instance_values(scores, truth) if label else {}
    slices = {"scores": scores.tolist(), "instance_label": truth.tolist()} if label else {}
    entropy = attention_mass(head_mean(output.attention[0]).float(), top=(), quantiles=())["entropy_ratio"]
    return row | values | slices | {"entropy_ratio": entropy}
