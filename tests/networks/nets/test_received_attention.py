"""Tests of the wrapper that reports received attention."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from monai_mil_ext.networks.nets import ABMIL, QGMIL, BagOutputWrapper, EncodedBag, QGMILBlock, ReceivedAttentionWrapper

MASK = torch.arange(5) < torch.tensor([[5], [3]])


def qgmil():
    return QGMIL(8, 2, hidden_size=16, num_layers=2, block=QGMILBlock(num_heads=2)).eval()


def test_received_attention_wrapper_replaces_attention_only():
    net, x = qgmil(), torch.randn(2, 5, 8)
    output, plain = ReceivedAttentionWrapper(net, layer=0)(x, MASK), BagOutputWrapper(net)(x, MASK)
    assert_close(output["attention"][..., 0], net.received_attention(x, MASK, 0))
    assert not torch.allclose(output["attention"], plain["attention"])
    assert_close(output["attention"].sum(1), torch.ones(2, 1))
    assert output["attention"][1, 3:].eq(0).all()
    assert output.keys() == plain.keys()
    for name in ("logits", "scores", "embedding"):
        assert torch.equal(output[name], plain[name])


def test_received_attention_wrapper_supports_encoded_bag():
    encoder, aggregator = nn.Sequential(nn.Flatten(), nn.Linear(4, 8)), qgmil()
    images = torch.randn(2, 5, 1, 2, 2)
    net = EncodedBag(encoder, aggregator).eval()
    output = ReceivedAttentionWrapper(net)(images, MASK)
    assert_close(output["attention"][..., 0], aggregator.received_attention(net.encode(images, MASK), MASK))
    assert_close(output["logits"], net(images, MASK))


@pytest.mark.parametrize("net", [ABMIL(8, 2), EncodedBag(nn.Flatten(), ABMIL(8, 2))])
def test_received_attention_wrapper_rejects_other_networks(net):
    with pytest.raises(ValueError, match="`net` must be QGMIL, or EncodedBag with such an aggregator, got"):
        ReceivedAttentionWrapper(net)
