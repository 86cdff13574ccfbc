"""Tests of plain and gated attention scores; their golden values are in test_abmil.py."""

import pytest
import torch
from torch.testing import assert_close

from monai_mil_ext.networks.blocks import GatedAttention, TanhAttention


@pytest.mark.parametrize("block", [TanhAttention, GatedAttention])
@pytest.mark.parametrize("num_heads", [1, 3])
def test_attention_scores_depend_on_one_instance_only(block, num_heads):
    scores, h = block(4, attention_size=5, num_heads=num_heads), torch.randn(2, 6, 4)
    assert scores(h).shape == (2, 6, num_heads)
    assert_close(scores(h)[1, 2], scores(h[1, 2]))


def test_attention_scores_match_manual_computation():
    for block, expected in ((TanhAttention, 3 * 0.7615942 + 1), (GatedAttention, 3 * 0.7615942 * 0.8807971 + 1)):
        scores = block(1, attention_size=1)
        for name, value in {"value.weight": 1, "gate.weight": 2, "score.weight": 3, "score.bias": 1}.items():
            if name in scores.state_dict():
                torch.nn.init.constant_(scores.get_parameter(name), value)
        for name in {"value.bias", "gate.bias"} & scores.state_dict().keys():
            torch.nn.init.zeros_(scores.get_parameter(name))
        assert_close(scores(torch.ones(1, 1, 1)).item(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("block", [TanhAttention, GatedAttention])
@pytest.mark.parametrize("name", ["in_features", "attention_size", "num_heads"])
def test_attention_scores_reject_sizes_that_are_not_positive(block, name):
    with pytest.raises(ValueError, match=f"`{name}` must be a positive integer, got -1"):
        block(**({"in_features": 4} | {name: -1}))
