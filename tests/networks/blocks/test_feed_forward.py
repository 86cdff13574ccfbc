"""Tests of the feed-forward networks by their formulas."""

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from monai_mil_ext.networks.blocks import GatedFeedForward, PlainFeedForward

PARTS = [GatedFeedForward, PlainFeedForward]
FUNCTIONS = {"silu": functional.silu, "gelu": functional.gelu, "relu": functional.relu}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_feed_forward_matches_formula(name):
    x, f = torch.randn(2, 5, 4), FUNCTIONS[name]
    gated, plain = GatedFeedForward(4, 7, name), PlainFeedForward(4, 7, name)
    hidden = f(x @ gated.gate_proj.weight.T) * (x @ gated.up_proj.weight.T)
    assert_close(gated(x), hidden @ gated.down_proj.weight.T)
    hidden = f(x @ plain.fc1.weight.T + plain.fc1.bias)
    assert_close(plain(x), hidden @ plain.fc2.weight.T + plain.fc2.bias)


@pytest.mark.parametrize("part", PARTS)
def test_feed_forward_rejects_bad_arguments(part):
    for arguments, name in (((0, 4), "size"), ((4, 0), "hidden_size")):
        with pytest.raises(ValueError, match=f"`{name}` must be a positive integer, got 0"):
            part(*arguments)
    with pytest.raises(ValueError, match="`activation` must be one of 'silu', 'gelu', 'relu', got 'tanh'"):
        part(4, 4, "tanh")
