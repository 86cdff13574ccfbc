"""Folds of a classical set: the same for every model, standardized by what a model is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from monai_mil_ext.data import FeatureStatistics, load_cohort, read_bag, split_cohort

__all__ = ["NUM_FOLDS", "REPEATS", "SEED", "Fold", "read_fold"]

NUM_FOLDS, REPEATS, SEED = 10, 3, 0
Bag = dict[str, Any]


class Fold:
    """Bags of one fold, in memory.

    Args:
        bags: all bags of a set, with ``case_id``, ``image`` (N, F) and ``label``.
        train: case ids of the training part.
        val: case ids of the part by which a setting is chosen.
        test: case ids of the part that is only predicted.
    """

    def __init__(self, bags: Sequence[Bag], train: Sequence[str], val: Sequence[str], test: Sequence[str]) -> None:
        self._parts = {
            name: [bag for bag in bags if bag["case_id"] in set(cases)]
            for name, cases in {"train": train, "val": val, "test": test}.items()
        }

    def standardized(self, train_parts: Sequence[str], eval_part: str) -> tuple[list[Bag], list[Bag]]:
        """Return the bags to train on and those to predict, standardized by the training bags alone."""
        train_bags = [bag for part in train_parts for bag in self._parts[part]]
        statistics = FeatureStatistics.from_items(train_bags)
        mean, scale = torch.from_numpy(statistics.mean), torch.from_numpy(statistics.scale)
        first, second = (
            [{**bag, "image": (bag["image"] - mean) / scale} for bag in bags]
            for bags in (train_bags, self._parts[eval_part])
        )
        return first, second


def read_fold(table: Path, number: int) -> Fold:
    """Read fold ``number`` of ``REPEATS`` times ``NUM_FOLDS``: stratified; val is a fifth of what is not tested."""
    items, splits = _read(table)
    return Fold(items, **splits.folds[number])


@lru_cache(maxsize=1)
def _read(table: Path) -> tuple[list[Bag], Any]:
    items = load_cohort(table)
    splits = split_cohort(items, NUM_FOLDS, val_fraction=0.2, repeats=REPEATS, seed=SEED)
    bags = [
        {"case_id": i["case_id"], "label": i["label"], "image": read_bag(i["image"])["features"].float()} for i in items
    ]
    return bags, splits
