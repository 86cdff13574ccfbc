"""Tests of the reduction of AttentionLoss."""

import pytest
import torch

from monai_mil_ext.losses import AttentionLoss


@pytest.mark.parametrize(("reduction", "expected"), [("none", [2.0, 0.0, 5.0]), ("sum", 7.0), ("mean", 3.5)])
def test_attention_loss_averages_heads_and_skips_empty_bags(reduction, expected):
    real = torch.tensor([[True, True], [False, False], [True, False]]).unsqueeze(-1)
    loss = torch.tensor([[1.0, 3.0], [float("nan"), 8.0], [4.0, 6.0]])
    assert AttentionLoss(reduction).reduce(loss, real).tolist() == expected
