"""The published formulations say what our networks say, gradients included: what is timed is the same function."""

import copy

import pytest
import torch
from torch.testing import assert_close

from monai_mil_ext.losses import NSFKLLoss
from monai_mil_ext.networks.nets import ASMIL, QGMIL
from tests.benchmarks.published import asmil, nsf_kl, published_weights, qgmil

MASK = torch.arange(300) < torch.tensor([[300], [170]])
every_mask = pytest.mark.parametrize("mask", [None, MASK], ids=["all", "mask"])


def louder(net):
    """A fresh network has flat attention; three times its weights are told apart."""
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(3)
    return net


def gradients_agree(net, weights, ours, published):
    """Gradients to 1e-5 of the largest: a gradient of 1e-9 beside others of 1 is rounding in both."""
    ours.square().sum().backward()
    published.square().sum().backward()
    named = dict(net.named_parameters())
    for name, place in net.reference_names().items():
        key, index = (place, ...) if isinstance(place, str) else place
        there = weights[name].grad
        assert there is not None, name
        here, scale = named[key].grad[index].view_as(there), max(1.0, named[key].grad.abs().max().item())
        assert_close(here, there, rtol=1e-4, atol=1e-5 * scale, msg=lambda m, name=name: f"{name}: {m}")


# ours draws nothing for padding that it leaves out, so with both a mask and dropout the draws are others
@pytest.mark.parametrize(("mask", "dropout"), [(None, 0.0), (None, 0.25), (MASK, 0.0)], ids=["all", "drop", "mask"])
def test_qgmil(mask, dropout):
    net, x = louder(QGMIL.from_preset("qgmil_base", 1024, 2, dropout=dropout)), torch.randn(2, 300, 1024)
    weights = published_weights(net)
    torch.manual_seed(1)
    ours = net(x, mask)
    torch.manual_seed(1)
    published = qgmil(weights, x, mask, dropout)
    assert_close(ours, published, rtol=1e-5, atol=1e-5)
    gradients_agree(net, weights, ours, published)


@every_mask
def test_asmil_and_its_anchor(mask):
    net, x = louder(ASMIL(384, 2, num_tokens=16)), torch.randn(2, 300, 384)
    anchor = copy.deepcopy(net).eval().requires_grad_(False)
    with torch.no_grad():
        for p in anchor.parameters():
            p.mul_(1.1)
    weights, steady = published_weights(net), published_weights(anchor)
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
        published = nsf_kl(scores, asmil(steady, x)[1])
        assert_close(ours, published, rtol=1e-5, atol=1e-5)
        assert ours > 1e-3
        terms = [terms[0] + ours, terms[1] + published]
    gradients_agree(net, weights, *terms)
