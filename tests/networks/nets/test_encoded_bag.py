"""Tests of EncodedBag: all laws but that on the input shape, which depends on the encoder, and its own behavior."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from monai_mil_ext.networks.nets import ABMIL, EncodedBag
from tests.contracts import laws
from tests.helpers import fill

F, C = 6, laws.NUM_CLASSES
COMPILED = {laws.export_serves_any_bag_size, laws.compiles_without_graph_break}
SLOW = pytest.mark.slow(buys="encoder and network are exported and compiled together")
LAWS = [law for law in laws.CHEAP + laws.EXPENSIVE if law is not laws.bad_input_is_named]
LAWS = [pytest.param(law, marks=SLOW if law in COMPILED else []) for law in LAWS]
X = torch.linspace(-2, 2, 2 * 5 * F, dtype=torch.float64).sin().view(2, 5, F)
MASK = torch.tensor([[True, True, True, True, True], [True, True, True, False, False]])


def make(**options):
    return EncodedBag(nn.Sequential(nn.Linear(F, 4), nn.Tanh()), ABMIL(4, C, attention_size=5), **options)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("options", [{}, {"chunk_size": 3}], ids=["whole", "chunks"])
def test_encoded_bag_keeps_law(law, options):
    if laws.claimed(law, partial(make, **options)):
        law(partial(make, **options), X, MASK)


def images(b=2, n=5):
    return torch.rand(b, n, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def image_net(**options):
    encoder = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return fill(EncodedBag(encoder, ABMIL(4, 2), **options))


def test_encoded_bag_is_the_aggregator_of_encoded_instances():
    net, x = image_net(), images()
    features = torch.stack([net.encoder(bag) for bag in x])
    assert_close(net(x), net.aggregator(features))
    assert_close(net.forward_bag(x, MASK).attention, net.aggregator.forward_bag(features, MASK).attention)


@pytest.mark.parametrize("options", [{"chunk_size": 2}, {"recompute": True}, {"chunk_size": 2, "recompute": True}])
def test_encoded_bag_chunks_and_recompute_change_no_output_or_gradient(options):
    plain, other = image_net().train(), image_net(**options).train()
    for net in (plain, other):
        net(images(), MASK).square().sum().backward()
    for p, q in zip(plain.parameters(), other.parameters(), strict=True):
        assert_close(p.grad, q.grad)


def test_encoded_bag_does_not_encode_padding():
    seen = []
    net = image_net()
    net.encoder.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    net(images(), MASK)
    net(images())
    net.forward_bag(images(), torch.zeros(2, 5, dtype=torch.bool))
    assert seen == [8, 10, 1]


def test_encoded_bag_batch_statistics_ignore_padding():
    net = EncodedBag(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64)), ABMIL(64, 2)).train()
    x = images()
    net(x.masked_fill(~MASK.view(2, 5, 1, 1, 1), float("nan")), MASK)
    assert_close(net.encoder[1].running_mean, 0.1 * x[MASK].flatten(1).mean(0))


def test_encoded_bag_rejects_bad_input():
    with pytest.raises(ValueError, match=r"`x` must have shape \(B, N, C, H, W\), got \(2, 5\)"):
        image_net()(torch.rand(2, 5))
    with pytest.raises(ValueError, match=r"`mask` must have shape \(B, N\) = \(2, 5\), got \(2, 4\)"):
        image_net()(images(), torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"`encoder` must give \(n, F\) for 10 instances, got \(10, 1, 8, 8\)"):
        EncodedBag(nn.Identity(), ABMIL(8, 2))(images())
    with pytest.raises(ValueError, match="`chunk_size` must be a positive integer, got 0"):
        image_net(chunk_size=0)
