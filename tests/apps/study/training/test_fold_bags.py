"""Tests of the bags of a fold."""

import pytest
import torch

from monai_mil_ext.apps.study import TrainingSettings
from monai_mil_ext.apps.study.training import available_memory, fold_bags, loss_terms
from tests.apps.study.cohort_bags import make_items

from .made_training import train, with_positions


def test_risk_sets_of_large_bags_have_several_bags(tmp_path):
    items = make_items(tmp_path, "cox")
    few = TrainingSettings(epochs=1, batch_instances=12)  # one bag
    fold, _ = train(items, "cox", settings=few)
    assert fold.history[0]["train_loss"] > 0.5  # a bag alone has no loss


def test_large_features_are_read_in_samples(tmp_path, monkeypatch):
    items = make_items(tmp_path)
    read = []
    load = fold_bags.RandLoadBagd.__call__
    monkeypatch.setattr(fold_bags.RandLoadBagd, "__call__", lambda self, d: read.append(load(self, d)) or read[-1])
    monkeypatch.setattr(fold_bags, "available_memory", lambda: 0)
    train(items, settings=TrainingSettings(epochs=2, max_instances=5))
    assert {len(bag["image"]) for bag in read} == {5}
    assert len(read) == 48


def test_free_memory_is_known():
    assert available_memory() > 2**20


@pytest.mark.parametrize("memory", [2**40, 0])
def test_positions_are_those_of_the_sampled_instances(memory, tmp_path, monkeypatch):
    monkeypatch.setattr(fold_bags, "available_memory", lambda: memory)
    seen = []

    def forward(loss, attention, mask=None, positions=None):
        seen.extend(row[valid] for row, valid in zip(positions, mask, strict=True))
        return attention.sum() * 0

    monkeypatch.setattr(loss_terms.NormalGuidanceLoss, "forward", forward)
    irregular = torch.arange(12, dtype=torch.float64) ** 2
    items = with_positions(make_items(tmp_path), tmp_path / "p", irregular)
    train(items, method="ABMIL+NG", settings=TrainingSettings(epochs=1, max_instances=5))
    assert {len(row) for row in seen} == {5}
    assert all((row.diff() > 0).all() and set(row.tolist()) <= set(irregular.tolist()) for row in seen)
    assert len({tuple(row.tolist()) for row in seen}) > 1
