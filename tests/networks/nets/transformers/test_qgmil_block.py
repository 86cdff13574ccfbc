"""Tests of QGMILBlock, the options of a block."""

import pytest

from monai_mil_ext.networks.blocks import GatedFeedForward, PlainFeedForward
from monai_mil_ext.networks.layers import LayerNormFp32, RMSNormFp32
from monai_mil_ext.networks.nets import QGMILBlock


@pytest.mark.parametrize(("norm", "kind"), [("rms", RMSNormFp32), ("layer", LayerNormFp32)])
@pytest.mark.parametrize(("ffn", "feed_forward"), [("swiglu", GatedFeedForward), ("mlp", PlainFeedForward)])
def test_qgmil_block_builds_the_chosen_parts(norm, kind, ffn, feed_forward):
    block = QGMILBlock(num_heads=2, norm=norm, ffn=ffn, ffn_size=12).build(8, dropout=0.3)
    assert isinstance(block.mlp, feed_forward)
    norms = block.input_layernorm, block.post_attention_layernorm, block.self_attn.q_norm, block.self_attn.k_norm
    assert all(isinstance(module, kind) for module in norms)
    assert [tuple(module.weight.shape) for module in norms] == [(8,), (8,), (4,), (4,)]
    assert block.dropout.p == 0.3


def test_qgmil_block_build_rejects_size_that_heads_do_not_divide():
    with pytest.raises(ValueError, match="`num_heads` must divide hidden_size 10 without head_size, got 8"):
        QGMILBlock().build(10)
    assert QGMILBlock(head_size=4).build(10).self_attn.head_size == 4


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"num_heads": 6, "num_kv_heads": 4}, r"`num_kv_heads` must divide num_heads 6, got 4"),
        ({"gate": "both"}, r"`gate` must be one of 'none', 'headwise', 'elementwise', got 'both'"),
        ({"gate": ("headwise", "elementwise")}, r"`gate` must be one of .*, got \('headwise', 'elementwise'\)"),
        ({"norm": "batch"}, r"`norm` must be one of 'rms', 'layer', got 'batch'"),
        ({"ffn": "glu"}, r"`ffn` must be one of 'swiglu', 'mlp', got 'glu'; did you mean 'swiglu'\?"),
        ({"activation": "tanh"}, r"`activation` must be one of 'silu', 'gelu', 'relu', got 'tanh'"),
        *(({name: 0}, rf"`{name}` must be a positive integer, got 0") for name in ("num_heads", "num_kv_heads")),
        *(({name: 0}, rf"`{name}` must be a positive integer, got 0") for name in ("head_size", "ffn_size")),
    ],
    ids=str,
)
def test_qgmil_block_rejects_bad_options(block, message):
    with pytest.raises(ValueError, match=message):
        QGMILBlock(**block)
