"""Tests of the values of the epochs of a training."""

import math

import pytest
import torch
from torch import nn

from monai_mil_ext.apps.study import Task
from monai_mil_ext.apps.study.outputs import TaskOutputs
from monai_mil_ext.apps.study.training import BestEpoch


def epoch_of(keeper, number, logit):
    """Note an epoch in which all bags get the same logits."""
    keeper.history.append({"epoch": number, "train_loss": 0.0})
    keeper._start()
    keeper._logits = [torch.tensor([[0.0, logit], [0.0, logit]])]
    keeper._rows = [{"label": torch.tensor(1)}, {"label": torch.tensor(1)}]
    with torch.no_grad():
        keeper.net.weight.fill_(number)
    keeper._compare()


def test_of_equal_losses_the_last_epoch_is_kept_and_nan_never():
    net = nn.Linear(1, 1)
    keeper = BestEpoch(net, TaskOutputs(Task("classification", ("a", "b"))), None)
    for number, logit in enumerate([0.0, 2.0, 2.0, 1.0, math.nan], 1):
        epoch_of(keeper, number, logit)
    keeper.restore()
    assert (keeper.epoch, net.weight.item()) == (3, 3.0)


def test_a_training_without_a_finite_loss_is_an_error():
    keeper = BestEpoch(nn.Linear(1, 1), TaskOutputs(Task("classification", ("a", "b"))), None)
    epoch_of(keeper, 1, math.nan)
    with pytest.raises(ValueError, match="must be finite in one epoch"):
        keeper.restore()
