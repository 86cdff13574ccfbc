"""Tests of PreNormBlock by its formula."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from monai_mil_ext.networks.blocks import GatedFeedForward, GatedSelfAttention, PreNormBlock
from tests.helpers import fill

MASK = torch.arange(5) < torch.tensor([[5], [3]])


@pytest.fixture
def block():
    parts = GatedSelfAttention(8, 2), GatedFeedForward(8, 16), nn.RMSNorm(8), nn.LayerNorm(8)
    return fill(PreNormBlock(*parts, dropout=0.5).double())


@pytest.fixture
def tokens():
    return torch.randn(2, 5, 8, dtype=torch.float64)


def test_pre_norm_block_matches_formula(block, tokens):
    h = tokens + block.self_attn(block.input_layernorm(tokens), MASK)
    out, heads = block(tokens, MASK)
    assert_close(out, h + block.mlp(block.post_attention_layernorm(h)))
    assert_close(heads.value, block.self_attn.project(block.input_layernorm(tokens)).value)


def test_pre_norm_block_first_only_returns_the_first_token(block, tokens):
    first, heads = block(tokens, MASK, first_only=True)
    assert_close(first, block(tokens, MASK)[0][:, :1])
    assert (heads.query.shape[2], heads.key.shape[2]) == (1, 5)


def test_pre_norm_block_on_concatenated_bags_equals_padded_bags(block, tokens):
    out, _ = block(tokens[MASK].unsqueeze(0), sizes=[5, 3])
    assert_close(out[0], block(tokens, MASK)[0][MASK])


def test_pre_norm_block_drops_both_outputs_in_training(block, tokens):
    block.train()
    block.dropout.p = 1.0
    assert torch.equal(block(tokens, MASK)[0], tokens)
