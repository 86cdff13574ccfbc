"""The folds of a classical set: the same for every model, standardised by what a model may know."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from monai_mil_ext.data import FeatureStatistics, load_cohort, read_bag, split_cohort

__all__ = ["NUM_FOLDS", "REPEATS", "Fold", "read_fold"]

NUM_FOLDS, REPEATS, SEED = 10, 3, 0
Bag = dict[str, Any]


class Fold:
    """The bags of one fold in memory.

    Args:
        bags: all of a set, with ``case_id``, ``image`` (N, F) and ``label``.
        train: case ids that choose nothing and are not chosen by.
        val: those that a setting is chosen by.
        test: those that nothing but the answer is for.
    """

    def __init__(self, bags: Sequence[Bag], train: Sequence[str], val: Sequence[str], test: Sequence[str]) -> None:
        self._parts = {
            name: [bag for bag in bags if bag["case_id"] in set(cases)]
            for name, cases in {"train": train, "val": val, "test": test}.items()
        }

    def standardized(self, learned: Sequence[str], asked: str) -> tuple[list[Bag], list[Bag]]:
        """Bags of the parts ``learned``, and of the part ``asked``, by the mean and deviation of the first alone."""
        known = [bag for part in learned for bag in self._parts[part]]
        found = FeatureStatistics.from_items(known)
        mean, scale = torch.from_numpy(found.mean), torch.from_numpy(found.scale)
        return tuple(  # type: ignore[return-value]
            [{**bag, "image": (bag["image"] - mean) / scale} for bag in bags] for bags in (known, self._parts[asked])
        )


def read_fold(table: Path, number: int) -> Fold:
    """Fold ``number`` (from 0) of ``REPEATS`` times ``NUM_FOLDS``: stratified; val is a fifth of what is not tested."""
    items, splits = _read(table)
    return Fold(items, **splits.folds[number])


@lru_cache(maxsize=1)
def _read(table: Path) -> tuple[list[Bag], Any]:
    items = load_cohort(table)
    splits = split_cohort(items, NUM_FOLDS, val_fraction=0.2, repeats=REPEATS, seed=SEED)
    kept = ("case_id", "label")
    return [{**{k: i[k] for k in kept}, "image": read_bag(i["image"])["features"].float()} for i in items], splits
