"""Tests of the experiment with many bags."""

import pytest
import torch

from monai_mil_ext.apps.study import Run
from monai_mil_ext.data import ShiftedMeanDataset

OPTIONS = {
    "num_train": 40,
    "num_val": 20,
    "epochs": 4,
    "batch_size": 16,
    "learning_rate": 0.01,
    "momentum": 0.9,
    "l1": 0.0001,
    "gradient_clip": 1.0,
    "seed": 5,
}


@pytest.fixture
def large():
    from experiments.claims import large

    return large


def test_packed_bags_give_the_results_of_single_ones(large):
    bags = ShiftedMeanDataset(6, 0, in_features=8)
    net = large.PackedABMIL(8)
    ((rows, sizes, _),) = large.batches(bags, torch.arange(6), 6)
    logits, scores, mask = net(rows, sizes)
    for number in range(6):
        alone = net.net.forward_bag(bags[number]["image"][None])
        torch.testing.assert_close(logits[number], alone.logits[0, 0])
        torch.testing.assert_close(scores[number][mask[number]], alone.scores[0])


def test_means_of_bags_give_the_logits_of_the_bags(large):
    net = large.PackedABMIL(8, even=True)
    logits = []
    for bags in (ShiftedMeanDataset(6, 0, in_features=8), large.load(6, 0, "mean", in_features=8)):
        ((rows, sizes, _),) = large.batches(bags, torch.arange(6), 6)
        logits.append(net(rows, sizes)[0])
    torch.testing.assert_close(*logits)


@pytest.mark.parametrize("method", ["mean", "ABMIL + NG"])
def test_a_stopped_training_continues_to_the_same_result(large, method, tmp_path, monkeypatch):
    monkeypatch.setattr(large, "SAVED", 2)
    whole = large.train(Run("a", {**OPTIONS, "method": method}), tmp_path)
    (tmp_path / "part").mkdir()
    large.train(Run("b", {**OPTIONS, "method": method, "epochs": 2}), tmp_path / "part")
    assert large.train(Run("b", {**OPTIONS, "method": method}), tmp_path / "part") == whole
    assert whole["train_auroc"] > whole["val_auroc"]


def test_the_page_says_not_run_until_it_is(large, tmp_path):
    assert large.claim_rows(tmp_path)[0]["ours"] == "not run"
    (tmp_path / "large").mkdir()
    text = '{"epochs": 2, "cpu_seconds_per_epoch": {"mean": 0.4, "ABMIL": 1.0, "ABMIL + NG": 1.0}}'
    (tmp_path / "large" / "rehearsal.json").write_text(text)
    (row,) = large.claim_rows(tmp_path)
    assert row["ours"] == "not run yet: 2.0 core-hours, by 2 epoch(s) of each network"
