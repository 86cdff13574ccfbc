"""Bags of noise with one or two runs of shifted instances, and ABMIL trained on them with each form of guidance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import DataLoader
from monai.engines import PrepareBatchExtraInput, SupervisedTrainer
from monai.utils import set_determinism

from monai_mil_ext.data import BagCollate
from monai_mil_ext.handlers import AttentionPriorHandler
from monai_mil_ext.losses import GuidanceLoss, KernelGuidanceLoss, NormalGuidanceLoss
from monai_mil_ext.networks.nets import ABMIL, BagNet
from monai_mil_ext.utils import quiet_loggers

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
    """Train ABMIL with AdamW, without a choice of the epoch."""
    set_determinism(seed)
    net = ABMIL(in_features=FEATURES, num_classes=2, hidden_size=32)
    data = [{"image": bag["image"], "label": bag["label"]} for bag in bags]
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=DataLoader(data, batch_size=BATCH, shuffle=True, collate_fn=BagCollate("image")),
        network=net,
        optimizer=torch.optim.AdamW(net.parameters(), lr=0.001, weight_decay=0.01),
        loss_function=torch.nn.CrossEntropyLoss(),
        prepare_batch=PrepareBatchExtraInput({"mask": "mask"}),
        train_handlers=[] if guide is None else [AttentionPriorHandler(guide)],
        decollate=False,
    )
    with quiet_loggers(trainer.logger):
        trainer.run()
    return net


def compare_toy(
    setting: str, seeds: Sequence[int], num_bags: int = 600, guides: Mapping[str, Any] | None = None
) -> dict[str, dict[int, list[dict[str, Any]]]]:
    """Return one row for each test bag by guidance and seed; a test set is as large as that of training."""
    shift, runs = SETTINGS[setting]
    rows: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for seed in seeds:
        train, test = (draw_bags(num_bags, 2 * seed + part, shift, runs) for part in (0, 1))
        for name, guide in (guides or GUIDES).items():
            net = train_abmil(train, guide() if guide else None, seed)
            rows.setdefault(name, {})[seed] = bag_rows(net, test)
    return rows
