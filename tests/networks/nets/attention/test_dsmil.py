"""Tests of DSMIL beyond the laws of all networks, which are in tests/contracts."""

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.testing import assert_close

from monai_mil_ext.networks.nets import DSMIL, load_reference_state_dict
from tests.helpers import fill
from tests.networks.baseline_cases import expected, published_bags, published_weights, tapped

TOLERANCE = {"rtol": 1e-7, "atol": 1e-7}  # the published code takes sqrt(128) in float32


def published(**options):
    net = DSMIL(32, 2, **options).double()
    load_reference_state_dict(net, published_weights("dsmil"))
    return net.eval()


def test_dsmil_matches_the_published_code():
    net, (x, mask) = published(), published_bags("dsmil")
    seen = tapped(net, "instance_tap", "branch_tap")
    out = net.forward_bag(x, mask)
    assert_close(out.logits[0], expected("dsmil", "bag_logits"), **TOLERANCE)
    assert_close(out.scores[0], expected("dsmil", "scores"), **TOLERANCE)
    assert_close(out.attention[0], expected("dsmil", "attention"), **TOLERANCE)
    assert_close(seen["instance_tap"][0], expected("dsmil", "instance_logits"), **TOLERANCE)
    assert_close(seen["branch_tap"][0, 0], expected("dsmil", "max_logits"), **TOLERANCE)
    assert_close(published(combine="mean_logit")(x)[0], expected("dsmil", "mean_logits"), **TOLERANCE)
    label = expected("dsmil", "config", "label").unsqueeze(0)
    losses = [binary_cross_entropy_with_logits(z, label) for z in (out.logits, seen["branch_tap"][:, 0])]
    assert_close(sum(losses) / 2, expected("dsmil", "total_loss"), **TOLERANCE)


@pytest.mark.parametrize(
    ("net", "count"),
    [
        (DSMIL(512, 1), 83_202),
        (DSMIL(512, 2), 85_252),
        (DSMIL(512, 2, value_layer=True), 347_908),
        (DSMIL(1024, 2), 153_860),
    ],
    ids=str,
)
def test_dsmil_has_the_published_number_of_parameters(net, count):
    assert sum(p.numel() for p in net.parameters()) == count


def test_each_logit_sees_the_embeddings_of_all_classes():
    net, pooled = fill(DSMIL(4, 3)).double(), torch.rand(1, 3, 4).double().requires_grad_()
    net.classify(pooled)[0, 0].sum().backward()
    assert (pooled.grad[0] != 0).any(1).all()


def test_critical_instance_is_the_first_of_equals_and_has_the_score_of_its_own_query():
    net = fill(DSMIL(4, 2)).double()
    x = torch.rand(1, 1, 4).double().repeat(1, 3, 1)
    q = net.query(x)[0]
    first_only = torch.cat([q[None, :1], 0 * q[None, 1:]], 1)
    assert_close(net._critical(first_only, net.classify_instance(x), None)[0, 0], q[0])
    assert_close(net.forward_bag(x).scores[0, 0, 0], q[0].square().sum() / 128**0.5)


def test_padding_is_never_critical():
    net = fill(DSMIL(4, 1)).double()
    with torch.no_grad():
        net.classify_instance.bias.fill_(-100)  # zeros would win
    x, seen = -torch.rand(1, 3, 4).double(), tapped(net, "branch_tap")
    alone = net(x[:, :2])
    highest = seen["branch_tap"]
    assert_close(net(x, torch.tensor([[True, True, False]])), alone)
    assert_close(seen["branch_tap"], highest)


def test_maximum_of_an_empty_bag_is_the_bias():
    net = fill(DSMIL(4, 2)).double()
    seen = tapped(net, "branch_tap")
    net(torch.rand(1, 3, 4).double(), torch.zeros(1, 3, dtype=torch.bool))
    assert_close(seen["branch_tap"][0, 0], net.classify_instance.bias)


def test_unknown_combination_is_refused():
    with pytest.raises(ValueError, match="`combine` must be one of"):
        DSMIL(4, 2, combine="sum")
