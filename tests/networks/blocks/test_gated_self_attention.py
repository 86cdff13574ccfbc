"""Tests of GatedSelfAttention: gates, rows of the query matrix, grouped heads, fused kernel."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from monai_mil_ext.networks.blocks import GatedSelfAttention, PreNormBlock
from monai_mil_ext.networks.blocks.gated_self_attention import attention_logits, attention_weights, propagate_attention
from monai_mil_ext.networks.nets import QGMIL, QGMILBlock
from monai_mil_ext.networks.nets.transformers.qgmil import PRESETS
from tests.networks.qgmil_cases import batch, known, plain_attention

SIZE = 12
GROUPS = {"heads": (4, 4), "grouped": (4, 2), "one-key": (4, 1)}
every_group = pytest.mark.parametrize(("num_heads", "num_kv_heads"), GROUPS.values(), ids=GROUPS)


def tokens():
    return torch.randn(2, 7, SIZE, dtype=torch.float64), torch.arange(7) < torch.tensor([[7], [3]])


def attention(num_heads=4, num_kv_heads=4, gate="headwise", head_size=3):
    return GatedSelfAttention(SIZE, num_heads, num_kv_heads, head_size, gate).double()


@pytest.mark.parametrize("masked", [False, True], ids=["all", "mask"])
@pytest.mark.parametrize("form", [{}, {"num_kv_heads": 2}, {"pooling": "cls"}], ids=["heads", "grouped", "cls"])
@pytest.mark.parametrize("name", PRESETS)
def test_gated_self_attention_matches_plain_attention(name, form, masked, monkeypatch):
    block = PRESETS[name]["block"]
    block = QGMILBlock(**{**vars(block), "num_kv_heads": form.get("num_kv_heads"), "head_size": 8, "ffn_size": 64})
    layers, pooling = PRESETS[name].get("num_layers", 1), form.get("pooling", "attention")
    net = known(QGMIL(5, 3, hidden_size=32, num_layers=layers, block=block, pooling=pooling))
    x, mask = batch(torch.float32)
    x = x.nan_to_num().requires_grad_()
    logits, gradients = [], []
    for kernel in (functional.scaled_dot_product_attention, plain_attention):
        monkeypatch.setattr(functional, "scaled_dot_product_attention", kernel)
        logits.append(net(x, mask if masked else None))
        gradients.append(torch.autograd.grad(logits[-1].square().sum(), x)[0])
    assert_close(*logits, rtol=0, atol=1e-5)
    assert (gradients[0] - gradients[1]).abs().max() <= 1e-3 * gradients[1].abs().max()
    assert gradients[1].any()


@every_group
@pytest.mark.parametrize("gate", ["headwise", "elementwise"])
def test_gated_self_attention_with_open_or_closed_gate(gate, num_heads, num_kv_heads):
    gated, ungated = (attention(num_heads, num_kv_heads, kind) for kind in (gate, "none"))
    groups = gated.q_proj.weight.unflatten(0, (num_kv_heads, -1))
    queries = groups[:, : num_heads // num_kv_heads * 3].flatten(0, 1)
    ungated.load_state_dict({**gated.state_dict(), "q_proj.weight": queries})
    x, mask = tokens()
    shut = PreNormBlock(gated, nn.Tanh(), nn.Identity(), nn.Identity())
    for opening, expected in ((1.0, ungated(x, mask)), (0.0, torch.zeros_like(x))):
        hook = gated.open_gate.register_forward_hook(lambda m, a, out, opening=opening: torch.full_like(out, opening))
        assert_close(gated(x, mask), expected)
        if not opening:
            assert_close(shut(x, mask)[0], x + x.tanh())
        hook.remove()


@every_group
def test_gated_self_attention_elementwise_gate_with_equal_rows_is_headwise(num_heads, num_kv_heads):
    headwise, elementwise = (attention(num_heads, num_kv_heads, kind) for kind in ("headwise", "elementwise"))
    groups, num_rows = headwise.q_proj.weight.unflatten(0, (num_kv_heads, -1)), num_heads // num_kv_heads * 3
    rows = torch.cat([groups[:, :num_rows], groups[:, num_rows:].repeat_interleave(3, 1)], 1).flatten(0, 1)
    elementwise.load_state_dict({**headwise.state_dict(), "q_proj.weight": rows})
    x, mask = tokens()
    assert_close(elementwise(x, mask), headwise(x, mask))


def test_gated_self_attention_has_gate_rows_as_published():
    layer, x = GatedSelfAttention(512, 8), torch.randn(1, 2, 512)
    rows = layer.q_proj.weight[list(range(64, 520, 65))]
    assert layer.q_proj.weight.shape == (520, 512)
    assert_close(layer.project(x).gate[..., 0], x @ rows.T)


def test_gated_self_attention_gate_depends_on_the_query_token():
    layer, (x, _) = attention(), tokens()
    gates = layer.project(x).gate
    changed = x.clone()
    changed[:, 2] += 1
    moved = (layer.project(changed).gate - gates).abs().sum((0, 2, 3)) > 0
    assert moved.tolist() == [False, False, True, False, False, False, False]


@every_group
def test_gated_self_attention_first_only_matches_all_tokens(num_heads, num_kv_heads):
    layer, (x, mask) = attention(num_heads, num_kv_heads), tokens()
    alone, all_of_them = layer.mix(layer.project(x, first_only=True), mask), layer(x, mask)
    assert alone.shape == (2, 1, SIZE)
    assert_close(alone, all_of_them[:, :1])


@every_group
def test_attention_weights_match_the_fused_kernel(num_heads, num_kv_heads):
    layer, (x, mask) = attention(num_heads, num_kv_heads, "none"), tokens()
    query, key, value, gate = layer.project(x)
    weights = attention_weights(query, key, mask)
    assert gate is None
    assert not weights[1, :, :, 3:].any()
    assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    mixed = weights @ value.repeat_interleave(num_heads // num_kv_heads, 1)
    assert_close(layer(x, mask), layer.o_proj(mixed.transpose(1, 2).flatten(2)))
    share = torch.rand(2, 7, dtype=torch.float64)
    assert_close(propagate_attention(share, query, key, mask), torch.einsum("bq,bhqt->bt", share, weights) / num_heads)


def test_attention_logits_are_float32_under_autocast():
    query, key = torch.randn(1, 2, 3, 16), torch.randn(1, 1, 50, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert not torch.equal((query @ key.transpose(-1, -2)).float() / 4, attention_logits(query, key))
        scores, received = attention_logits(query, key), propagate_attention(torch.ones(1, 3).bfloat16(), query, key)
    assert scores.dtype == received.dtype == torch.float32
    assert_close(scores, query @ key.transpose(-1, -2) / 4)
    assert_close(received.sum().item(), 3.0, rtol=0, atol=1e-5)


def test_gated_self_attention_normalizes_queries_and_keys_per_head():
    layer = GatedSelfAttention(8, 2, 1, 4, query_norm=nn.RMSNorm(4), key_norm=nn.LayerNorm(4))
    heads = layer.project(torch.randn(1, 5, 8))
    assert_close(heads.query.square().mean(-1), torch.ones(1, 2, 5), rtol=1e-3, atol=1e-3)
    assert_close(heads.key.mean(-1), torch.zeros(1, 1, 5))
    assert (heads.value.mean(-1).abs() > 1e-3).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0}, "`size` must be a positive integer, got 0"),
        ({"num_heads": 0}, "`num_heads` must be a positive integer, got 0"),
        ({"num_heads": 5}, "`num_heads` must divide the size 12 of a token, got 5"),
        ({"num_kv_heads": 0}, "`num_kv_heads` must be a positive integer, got 0"),
        ({"num_kv_heads": 3}, "`num_kv_heads` must divide num_heads 4, got 3"),
        ({"head_size": 0}, "`head_size` must be a positive integer, got 0"),
        ({"gate": "both"}, "`gate` must be one of 'none', 'headwise', 'elementwise', got 'both'"),
    ],
    ids=str,
)
def test_gated_self_attention_rejects_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        GatedSelfAttention(**{"size": SIZE, "num_heads": 4} | change)
