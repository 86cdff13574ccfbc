"""Bags of noise with one or two runs of shifted instances, and ABMIL trained on them with each form of guidance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from monai_mil_ext.losses import GuidanceLoss, KernelGuidanceLoss, NormalGuidanceLoss
from monai_mil_ext.networks.nets import ABMIL, BagNet

from .mixture import MixtureGuidanceLoss
from .rows import bag_rows

__all__ = ["GUIDES", "SETTINGS", "compare_toy", "draw_bags", "train_abmil"]

FEATURES = 32
BATCH = 32
SETTINGS = {  # shift of the feature, and lengths of the runs
    "shift 2.5, one run": (2.5, (8,)),
    "shift 2.5, two runs": (2.5, (4, 4)),
    "shift 1.2, one run": (1.2, (8,)),
    "shift 1.2, two runs": (1.2, (4, 4)),
}
GUIDES: dict[str, Callable[[], GuidanceLoss] | None] = {
    "none": None,
    "NG": NormalGuidanceLoss,
    "mixture": MixtureGuidanceLoss,
    "kernel": KernelGuidanceLoss,
}


def draw_bags(
    num_bags: int, seed: int, shift: float, runs: Sequence[int], lengths: tuple[int, int] = (40, 70)
) -> list[dict[str, Any]]:
    """Draw bags of standard normal features; in every second, the first feature of some runs is shifted.

    The runs are apart by at least one instance.
    """
    rng = np.random.default_rng(seed)
    bags = []
    for i in range(num_bags):
        label = i % 2
        size = int(rng.integers(lengths[0], lengths[1] + 1))
        x, truth = rng.standard_normal((size, FEATURES)), np.zeros(size, dtype=np.int64)
        if label:
            gaps = np.sort(rng.integers(0, size - sum(runs) - len(runs) + 2, len(runs)))
            for k, (gap, run) in enumerate(zip(gaps, runs, strict=True)):
                start = gap + sum(runs[:k]) + k
                truth[start : start + run] = 1
            x[:, 0] += shift * truth
        image = torch.as_tensor(x, dtype=torch.float32)
        bags.append(
            {"image": image, "label": i % 2, "instance_label": torch.as_tensor(truth), "case_id": f"{seed}_{i}"}
        )
    return bags


def train_abmil(bags: Sequence[Mapping[str, Any]], guide: GuidanceLoss | None, seed: int, epochs: int = 20) -> BagNet:
    """Train ABMIL with AdamW, without a choice of the epoch; a plain loop, since the bags fit in one tensor."""
    torch.manual_seed(seed)
    net = ABMIL(in_features=FEATURES, num_classes=2, hidden_size=32)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.001, weight_decay=0.01, fused=True)
    x, sizes = pad_sequence([bag["image"] for bag in bags], batch_first=True), [len(bag["image"]) for bag in bags]
    mask = torch.arange(x.shape[1]) < torch.tensor(sizes).unsqueeze(1)
    labels = torch.tensor([bag["label"] for bag in bags])
    for _ in range(epochs):
        for rows in torch.randperm(len(bags)).split(BATCH):
            output = net.forward_bag(x[rows], mask[rows])
            loss = cross_entropy(output.logits, labels[rows])
            if guide is not None:
                loss = loss + guide(output.attention, mask[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net


def compare_toy(
    setting: str, seeds: Sequence[int], num_bags: int = 600, guides: Mapping[str, Any] | None = None
) -> dict[str, dict[int, list[dict[str, Any]]]]:
    """Return one row for each test bag by guidance and seed; a test set is half as large as that of training."""
    shift, runs = SETTINGS[setting]
    rows: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for seed in seeds:
        train, test = (draw_bags(num_bags // (part + 1), 2 * seed + part, shift, runs) for part in (0, 1))
        for name, guide in (guides or GUIDES).items():
            net = train_abmil(train, guide() if guide else None, seed)
            rows.setdefault(name, {})[seed] = bag_rows(net, test)
    return rows
