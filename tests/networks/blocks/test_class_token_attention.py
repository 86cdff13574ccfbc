"""Tests of ClassTokenAttention."""

import pytest
import torch
from torch.testing import assert_close

from monai_mil_ext.networks.blocks import ClassTokenAttention


def test_class_token_attention_matches_torch():
    net, h = ClassTokenAttention(16, num_heads=8).double(), torch.rand(2, 7, 16, dtype=torch.float64)
    torch.nn.init.normal_(net.project.bias)
    torch.nn.init.normal_(net.merge.bias)
    peer = torch.nn.MultiheadAttention(16, 8, batch_first=True, dtype=torch.float64)
    names = {"in_proj_weight": "project.weight", "in_proj_bias": "project.bias"}
    names |= {f"out_proj.{part}": f"merge.{part}" for part in ("weight", "bias")}
    peer.load_state_dict({theirs: net.state_dict()[ours] for theirs, ours in names.items()})
    mask = torch.arange(7) < torch.tensor([[7], [4]])
    expected, weights = peer(h, h, h, key_padding_mask=~mask, average_attn_weights=False)
    assert_close(net(h, mask)[mask], expected[mask])
    attention = net.cls_scores(h).masked_fill(~mask[..., None], -torch.inf).softmax(1)
    assert_close(attention, weights[:, :, 0].transpose(1, 2))
    assert_close(net.cls_output(attention, h), expected[:, 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((6, 4), "`num_heads` must divide the size 6 of a token, got 4"),
        ((0, 1), "`size` must be a positive integer, got 0"),
    ],
)
def test_class_token_attention_rejects_bad_sizes(options, message):
    with pytest.raises(ValueError, match=message):
        ClassTokenAttention(*options)
