"""Slice-supervised reference: a linear classifier of slices, trained with the label of every slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.data import CacheDataset, DataLoader
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from monai.transforms import Compose, NormalizeIntensityd
from monai.utils import set_determinism

from experiments.ct_protocol.slice_labels import InstanceLogits, PrepareSliceLabels
from monai_mil_ext.apps.study import StudyMethod, Task, TrainingSettings
from monai_mil_ext.apps.study.methods import build_study_network
from monai_mil_ext.apps.study.training import apply_settings
from monai_mil_ext.data import BagCollate, FeatureStatistics
from monai_mil_ext.losses import MultiLabelLoss
from monai_mil_ext.metrics import localization
from monai_mil_ext.networks.nets import BagNet, StandardizedNet
from monai_mil_ext.transforms import LoadBagd
from monai_mil_ext.utils import quiet_loggers

__all__ = ["train_slice_supervised"]

KEYS = ["image", "instance_label"]
Items = Sequence[Mapping[str, Any]]


def train_slice_supervised(
    method: StudyMethod, train_items: Items, val_items: Items, task: Task, training: TrainingSettings
) -> tuple[StandardizedNet, dict[str, Any]]:
    """Train with the labels of slices, and keep the epoch with the highest slice AUROC of the validation part.

    Args:
        method: network whose scores are trained.
        train_items: items of the training part.
        val_items: items of the validation part.
        task: task of one label.
        training: settings.

    Returns:
        The network, and the epoch with its slice AUROC.
    """
    method, training = apply_settings(method, training, {})
    set_determinism(training.seed)
    statistics = FeatureStatistics.from_items(train_items)
    network = build_study_network(method, train_items[0], task)
    steps = [LoadBagd(KEYS), NormalizeIntensityd("image", statistics.mean, statistics.scale)]
    train, val = (
        CacheDataset([{"image": item["image"]} for item in items], Compose(steps), progress=False)
        for items in (train_items, val_items)
    )
    optimizer = torch.optim.AdamW(
        network.net.parameters(), training.learning_rate, weight_decay=training.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.epochs)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=training.epochs,
        train_data_loader=DataLoader(
            train, batch_size=training.batch_size or 16, shuffle=True, collate_fn=BagCollate(KEYS)
        ),
        network=InstanceLogits(network.net),
        optimizer=optimizer,
        loss_function=MultiLabelLoss(),
        prepare_batch=PrepareSliceLabels(),
        train_handlers=[LrScheduleHandler(schedule, print_lr=False)],
        decollate=False,
    )
    best: dict[str, Any] = {"epoch": 0, "val_instance_auroc": -1.0}

    def keep() -> None:
        auroc = _slice_auroc(network.net, val)
        if auroc > best["val_instance_auroc"]:
            weights = {name: value.clone() for name, value in network.net.state_dict().items()}
            best.update(epoch=trainer.state.epoch, val_instance_auroc=auroc, weights=weights)

    trainer.add_event_handler(Events.EPOCH_COMPLETED, keep)
    with quiet_loggers(trainer.logger):
        trainer.run()
    network.net.load_state_dict(best.pop("weights"))
    network.set_statistics(statistics.mean, statistics.scale)
    return network.eval(), best


def _slice_auroc(net: BagNet, bags: Items) -> float:
    """Return the mean slice AUROC of the bags with a lesion."""
    net.eval()
    with torch.inference_mode():
        scores = [net.forward_bag(bag["image"][None]).scores for bag in bags]
    net.train()
    rows = [
        localization(s[0, :, 0], bag["instance_label"])["auroc"]
        for s, bag in zip(scores, bags, strict=True)
        if s is not None
    ]
    return float(np.nanmean(rows))
