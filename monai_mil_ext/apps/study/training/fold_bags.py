"""Bags of a fold as batches for training and validation."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.data import CacheDataset, DataLoader, Dataset
from monai.transforms import CastToTyped, Compose, NormalizeIntensityd, SelectItemsd

from monai_mil_ext.apps.study.outputs import Items, TaskOutputs
from monai_mil_ext.data import BagBatchSampler, BagCollate, FeatureStatistics, bag_sizes, open_bag
from monai_mil_ext.transforms import LoadBagd, PatientBagd, RandLoadBagd, RandSampleInstancesd
from monai_mil_ext.utils import BagKeys

from .training_settings import TrainingSettings

__all__ = ["POSITION", "FoldBags", "available_memory", "feature_bytes", "has_positions"]

CASE, POSITION = str(BagKeys.CASE_ID), str(BagKeys.POSITION)
CACHED = 0.25  # fraction of the free memory that features may take
RISK_SET = 8  # least number of bags of a batch whose risks are compared with one another


@dataclass(frozen=True)
class FoldBags:
    """Loaders of the bags of a fold; in training, with the positions of the instances in mm if the loss uses them."""

    statistics: FeatureStatistics
    outputs: TaskOutputs
    training: TrainingSettings
    device: torch.device
    positions: bool = False

    def loader(self, items: Items, train: bool) -> DataLoader:
        """Return a loader of batches; of training, in another order in each epoch."""
        cached = feature_bytes(items, len(self.statistics.mean)) <= CACHED * available_memory()
        most = self.training.max_instances if train else None
        keys = ["image", POSITION] if self.positions and train else ["image"]
        load = LoadBagd(keys) if cached or most is None else RandLoadBagd(keys, most, stratified=True)
        steps = [
            PatientBagd("image", load),
            SelectItemsd([*keys, "label", CASE]),
            NormalizeIntensityd("image", self.statistics.mean, self.statistics.scale),
        ]
        if POSITION in keys:
            steps.append(CastToTyped(POSITION, torch.float32))
        if cached and most is not None:
            steps.append(RandSampleInstancesd(keys, most, stratified=True))
        transform = Compose(steps)
        transform.set_random_state(self.training.seed)
        data = [
            {**_input(item), "label": label} for item, label in zip(items, self.outputs.targets(items), strict=True)
        ]
        dataset = CacheDataset(data, transform, progress=False) if cached else Dataset(data, transform)
        sizes = bag_sizes(items, max_instances=most)
        sampler = BagBatchSampler(
            sizes,
            self._batch_instances(sizes),
            self._batch_size(len(items)),
            shuffle=train,
            seed=self.training.seed,
        )
        return DataLoader(dataset, batch_sampler=sampler, collate_fn=BagCollate(keys), num_workers=0)

    def _batch_size(self, num_items: int) -> int:
        size = self.training.batch_size or max(1, min(16, num_items // 8))
        return max(size, RISK_SET) if self.outputs.task.kind == "cox" else size

    def _batch_instances(self, sizes: Sequence[int]) -> int:
        most = self.training.batch_instances
        return max(most, RISK_SET * max(sizes)) if self.outputs.task.kind == "cox" else most


def _input(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: item[name] for name in ("image", CASE, "start", "stop", "slide") if name in item}


def has_positions(items: Items) -> bool:
    """Return whether each bag is one file with a position (N,) in mm of each instance, as those of scans are.

    Bags of several files have none in common, and the places of tokens in 3D are no order.
    """
    return all(isinstance(item["image"], (str, os.PathLike)) and _has_positions(item) for item in items)


def _has_positions(item: Mapping[str, Any]) -> bool:
    with open_bag(item["image"], item.get("slide")) as bag:
        return POSITION in bag.info().keys and bag.read([POSITION], range(1))[POSITION].ndim == 1


def feature_bytes(items: Items, in_features: int) -> int:
    """Return the bytes of the features of all bags in float32."""
    return 4 * in_features * sum(bag_sizes(items))


def available_memory() -> int:
    """Return the bytes of memory that a new process could use without swapping."""
    info = Path("/proc/meminfo")
    lines = info.read_text().splitlines() if info.exists() else []
    free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return free[0] if free else os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
