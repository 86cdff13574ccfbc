"""Tests of additive MIL beyond the laws of all networks, which are in tests/contracts."""

import pytest
import torch
from torch.testing import assert_close

from monai_mil_ext.networks.nets import AdditiveMIL, load_reference_state_dict
from tests.helpers import fill
from tests.networks.baseline_cases import DATA, TOLERANCE, expected, published_bags, published_weights, tapped


def published():
    net = AdditiveMIL(20, 2, hidden_size=12, norm="batch").double()
    load_reference_state_dict(net, published_weights("additive"))
    return net.eval()


def test_additive_matches_the_published_code():
    net, (x, mask) = published(), published_bags("additive")
    seen = tapped(net, "contribution_tap")
    out = net.forward_bag(x, mask)
    assert_close(out.logits, expected("additive", "logits"), **TOLERANCE)
    for i, n in enumerate(mask.sum(1).tolist()):
        for name, got in (("scores", out.scores), ("attention", out.attention)):
            assert_close(got[i, :n], expected("additive", name, i), **TOLERANCE)
        assert_close(seen["contribution_tap"][i, :n], expected("additive", "contributions", i), **TOLERANCE)
        assert not seen["contribution_tap"][i, n:].any()
    assert sum(p.numel() for p in net.parameters()) == DATA["cases"]["additive"]["parameter_count"]


@pytest.mark.parametrize(("norm", "count"), [("batch", 658_179), ("layer", 658_179), ("none", 657_155)])
def test_additive_has_the_published_number_of_parameters(norm, count):
    assert sum(p.numel() for p in AdditiveMIL(1024, 2, norm=norm).parameters()) == count


def test_contributions_sum_to_the_logits_and_padding_adds_no_offset():
    net, (x, _) = published(), published_bags("additive")
    zero = expected("additive", "contribution_of_a_zero_instance")
    assert_close(net.classify(torch.zeros(20, dtype=torch.float64)), zero, **TOLERANCE)
    seen = tapped(net, "contribution_tap")
    logits = net(x[:1])
    assert_close(seen["contribution_tap"].sum(1), logits)
    padded = torch.cat([x[:1], torch.full_like(x[:1, :3], torch.nan)], 1)
    assert_close(net(padded, torch.arange(12)[None] < 9), logits)


def test_centered_contributions_have_no_offset_that_grows_with_the_bag():
    """A bag of each instance twice has half the attention, and MLP(0) no longer counts for each instance."""
    offset = torch.tensor([100.0, -50.0], dtype=torch.float64)
    x, growth = torch.randn(1, 8, 5).double(), []
    for centered in (False, True):
        net = fill(AdditiveMIL(5, 2, hidden_size=4, centered=centered)).double().eval()
        with torch.no_grad():
            net.classify[4].bias.add_(offset)
        seen = tapped(net, "contribution_tap")
        once, twice = net(x), net(x.repeat(1, 2, 1))
        growth.append(twice - once)
        assert_close(seen["contribution_tap"].sum(1), twice)
        rows = net.classify(net.forward_bag(x).attention * x)
        zero = net.classify(torch.zeros(1, 5, dtype=torch.float64))
        assert_close(once, (rows - zero if centered else rows).sum(1))
    assert_close(growth[0] / 8 / offset, torch.ones(1, 2, dtype=torch.float64), rtol=0, atol=0.1)
    assert growth[1].abs().max() < 5
    assert not net(x[:, :0]).any()


def test_batch_norm_takes_statistics_of_valid_instances_alone():
    x, mask = torch.rand(3, 7, 5).double(), torch.arange(7) < torch.tensor([[7], [2], [4]])
    first, second = (fill(AdditiveMIL(5, 2, hidden_size=4, norm="batch")).double().train() for _ in range(2))
    assert_close(first(x.where(mask[..., None], torch.nan), mask), second(x.where(mask[..., None], 1e30), mask))
    assert_close(first.score_layers[0].norm.running_mean, second.score_layers[0].norm.running_mean)
    rows = first.score_layers[0].project(x[mask])
    assert_close(first.score_layers[0].norm.running_mean, 0.1 * rows.mean(0))


def test_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="`norm` must be one of"):
        AdditiveMIL(5, 2, norm="group")
