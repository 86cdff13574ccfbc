"""Tests that the published formulations equal our networks in value and gradient, so timings are comparable."""

import copy
from unittest import mock

import pytest
import torch
from torch.testing import assert_close

from monai_mil_ext.losses import NSFKLLoss
from monai_mil_ext.networks.layers import bit_dropout
from monai_mil_ext.networks.nets import ASMIL, QGMIL
from tests.benchmarks.published import asmil, nsf_kl, published_weights, qgmil

MASK = torch.arange(300) < torch.tensor([[300], [170]])
every_mask = pytest.mark.parametrize("mask", [None, MASK], ids=["all", "mask"])


def with_strong_attention(net):
    """Return the network with three times its initial weights, whose attention is nearly uniform."""
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(3)
    return net


def gradients_agree(net, weights, ours, published):
    """Compare gradients to 1e-5 of the largest, since small entries are rounding errors in both."""
    ours.square().sum().backward()
    published.square().sum().backward()
    named = dict(net.named_parameters())
    for name, ours_key in net.reference_names().items():
        key, index = (ours_key, ...) if isinstance(ours_key, str) else ours_key
        there = weights[name].grad
        assert there is not None, name
        here, scale = named[key].grad[index].view_as(there), max(1.0, named[key].grad.abs().max().item())
        assert_close(here, there, rtol=1e-4, atol=1e-5 * scale, msg=lambda m, name=name: f"{name}: {m}")


# our network draws no dropout for padding, so with both mask and dropout the draws differ
@pytest.mark.parametrize(("mask", "dropout"), [(None, 0.0), (None, 0.25), (MASK, 0.0)], ids=["all", "drop", "mask"])
def test_qgmil_equals_the_published_formulation(mask, dropout):
    net, x = with_strong_attention(QGMIL.from_preset("qgmil_base", 1024, 2, dropout=dropout)), torch.randn(2, 300, 1024)
    weights = published_weights(net)
    torch.manual_seed(1)
    with mock.patch.object(bit_dropout, "is_eager_on_host", return_value=False):  # dropout as torch draws it
        ours = net(x, mask)
    torch.manual_seed(1)
    published = qgmil(weights, x, mask, dropout)
    assert_close(ours, published, rtol=1e-5, atol=1e-5)
    gradients_agree(net, weights, ours, published)


@every_mask
def test_asmil_and_nsf_kl_equal_the_published_formulation(mask):
    net, x = with_strong_attention(ASMIL(384, 2, num_tokens=16)), torch.randn(2, 300, 384)
    anchor = copy.deepcopy(net).eval().requires_grad_(False)
    with torch.no_grad():
        for p in anchor.parameters():
            p.mul_(1.1)
    weights, anchor_weights = published_weights(net), published_weights(anchor)
    torch.manual_seed(1)
    out = net.forward_bag(x, mask)
    torch.manual_seed(1)
    logits, scores = asmil(weights, x, mask, dropout=0.1, drop=0.5)
    assert_close(out.logits, logits, rtol=1e-5, atol=1e-5)
    real = torch.ones(2, 300).bool() if mask is None else mask
    assert_close(out.scores[real], scores.flatten(1, 2).transpose(1, 2)[real], rtol=1e-5, atol=1e-5)
    terms = [out.logits.sum(), logits.sum()]
    if mask is None:  # the plain normalized sigmoid has no mask
        ours = NSFKLLoss()(out.scores, anchor.forward_bag(x).scores)
        published = nsf_kl(scores, asmil(anchor_weights, x)[1])
        assert_close(ours, published, rtol=1e-5, atol=1e-5)
        assert ours > 1e-3
        terms = [terms[0] + ours, terms[1] + published]
    gradients_agree(net, weights, *terms)
