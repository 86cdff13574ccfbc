"""Tests of the terms that a method adds to the loss of its labels."""

import numpy as np
import pytest
import torch

from monai_mil_ext.apps.study import TrainingSettings
from tests.apps.study.cohort_bags import make_items

from .made_training import train, with_positions


@pytest.mark.parametrize("kind", ["several classes", "multilabel", "ordinal", "regression", "survival", "cox"])
@pytest.mark.parametrize("method", ["ACMIL", "DSMIL", "CLAM-MB"])
def test_terms_on_logits_fit_each_task(method, kind, tmp_path):
    fold, _ = train(make_items(tmp_path, kind), kind, method, TrainingSettings(epochs=1))
    (row,) = fold.history
    assert np.isfinite([row["train_loss"], row["val_loss"]]).all()


def test_weights_of_terms_change_the_training(tmp_path):
    items, few = make_items(tmp_path), TrainingSettings(epochs=1)
    for method, weight in (("DSMIL", "branches"), ("CLAM", "instances"), ("ACMIL", "branches")):
        off, on = [train(items, method=method, settings=few, **{weight: w})[0] for w in (0, 1)]
        assert on.history[0]["train_loss"] > off.history[0]["train_loss"]


def test_a_term_that_a_task_lacks_is_noted(tmp_path):
    fold, _ = train(make_items(tmp_path, "regression"), "regression", "CLAM", TrainingSettings(epochs=1))
    assert fold.notes == ["CLAM is trained without its instance loss, which needs classes that exclude one another."]


def test_normal_guidance_takes_positions_in_mm(tmp_path):
    items, few = make_items(tmp_path), TrainingSettings(epochs=2)
    regular, irregular = 5.0 * torch.arange(12), torch.tensor([0.0, 1, 2, 3, 4, 5, 6, 7, 8, 60, 61, 62])
    places = {"none": None, "regular": regular, "irregular": irregular, "points": torch.rand(12, 3)}
    folds = {name: train(with_positions(items, tmp_path / name, p), method="ABMIL+NG", settings=few)[0]
             for name, p in places.items()}  # fmt: skip
    losses = {name: [row["train_loss"] for row in fold.history] for name, fold in folds.items()}
    assert losses["regular"] == pytest.approx(losses["none"], rel=1e-4)
    assert losses["points"] == losses["none"]
    assert abs(losses["irregular"][-1] - losses["none"][-1]) > 0.01
    assert [len(fold.notes) for fold in folds.values()] == [0, 1, 1, 0]
