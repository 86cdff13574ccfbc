"""ABMIL on scans with inserted lesions, trained as in a study, with each form of guidance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sklearn.model_selection import train_test_split

from monai_mil_ext.apps.study import Task, TrainingSettings, parse_methods, train_bag_network
from monai_mil_ext.data import CohortColumns, load_cohort
from monai_mil_ext.transforms import LoadBagd

from .rows import bag_rows, center_rows

__all__ = ["METHODS", "compare_lesions"]

SEEDS = (1, 2, 3)
METHODS = {"none": "ABMIL", "NG": "ABMIL+NG", "kernel": "ABMIL+KG"}
TASK = Task("classification", ("normal", "lesion"))
COLUMNS = CohortColumns(instance_label="instance_label")


def compare_lesions(folder: Path) -> Mapping[str, Mapping[int, Sequence[dict[str, Any]]]]:
    """Return one row for each test scan by guidance and seed; a seed redraws the parts and the weights."""
    items = load_cohort(folder / "cohort.csv", COLUMNS, root=folder)
    load = LoadBagd(["image", "instance_label"])
    rows: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for seed in SEEDS:
        parts = _split(items, seed)
        bags = [load(dict(item.items())) for item in parts["test"]]
        rows.setdefault("center", {})[seed] = center_rows(bags)
        for name, method in METHODS.items():
            training = TrainingSettings(seed=seed)
            fold = train_bag_network(parse_methods(method)[0], {}, parts["train"], parts["val"], TASK, training)
            rows.setdefault(name, {})[seed] = bag_rows(fold.network, bags)
    return rows


def _split(items: Sequence[dict[str, Any]], seed: int) -> dict[str, list[dict[str, Any]]]:
    """Divide the scans by label: 60 % for training, 20 % for the choice of the epoch and 20 % for the test."""

    def divide(some: Sequence[dict[str, Any]], fraction: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        labels = [item["label"] for item in some]
        return train_test_split(some, test_size=fraction, random_state=seed, stratify=labels)

    rest, test = divide(items, 0.2)
    train, val = divide(rest, 0.25)
    return {"train": train, "val": val, "test": test}
