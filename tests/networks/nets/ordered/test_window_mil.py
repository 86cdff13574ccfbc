"""Tests of WindowMIL beyond the laws of all networks, which are in tests/contracts."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from monai_mil_ext.data import run_posterior
from monai_mil_ext.networks.nets import WindowMIL
from tests.golden import reference_window_mil as reference
from tests.helpers import fill

SIZES = [9, 1, 4]
X = np.cos(np.arange(3 * 9 * 5) * 0.37).reshape(3, 9, 5)
MASK = torch.arange(9) < torch.tensor(SIZES)[:, None]


def told(net):
    """Return the parameters of the network in the form of the reference."""
    height = np.log1p(np.exp(net.raw_height.detach().numpy()))
    weight, offset = (p.detach().numpy() for p in (net.evidence.weight, net.evidence.bias))
    return weight, offset, height, net.log_half_width.detach().exp().numpy(), net.bias.detach().numpy()


@pytest.mark.parametrize("reach", [2, 30])
@pytest.mark.parametrize("softness", [0.3, 0.7])
def test_window_mil_matches_reference(reach, softness):
    net = fill(WindowMIL(5, 2, half_width=1.0, softness=softness, reach=reach)).double()
    net.log_half_width.data = torch.tensor([0.1, 0.8], dtype=torch.float64)
    out = net.forward_bag(torch.tensor(X).where(MASK[..., None], torch.nan), MASK)
    for i, n in enumerate(SIZES):
        logits, scores, attention = reference.window_mil(X[i, :n], *told(net), softness=softness, reach=reach)
        assert_close(out.logits[i], torch.tensor(logits), rtol=1e-10, atol=1e-10)
        assert_close(out.scores[i, :n], torch.tensor(scores), rtol=1e-10, atol=1e-10)
        assert_close(out.attention[i, :n], torch.tensor(attention), rtol=1e-10, atol=1e-10)


@given(st.lists(st.booleans(), min_size=1, max_size=9))
def test_window_mil_ignores_padding_between_instances(real):
    net, mask = fill(WindowMIL(5, 2, half_width=1.0)).double(), torch.tensor([real])
    bag = torch.tensor(X[:1, : len(real)])
    apart = net.forward_bag(bag.where(mask[..., None], torch.nan), mask)
    together = net.forward_bag(bag[:, mask[0]])
    assert_close(apart.logits, together.logits)
    assert_close(apart.attention[mask], together.attention[0])


def test_window_mil_with_true_parameters_is_bayes_rule():
    """Check that a hard box of the width of the run and the true evidence give the posterior over all positions."""
    net, run, shift = WindowMIL(1, 1, half_width=2.25, softness=1e-3).double(), 5, 0.5
    net.evidence.weight.data.fill_(shift)
    net.evidence.bias.data.fill_(-(shift**2) / 2)
    net.raw_height.data.fill_(np.log(np.e - 1))  # height one
    x = torch.randn(1, 20, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = run_posterior((x[0] * shift - shift**2 / 2).squeeze(1), run)
    net.bias.data.fill_(np.log(20 / (20 - run + 1)))  # possible windows among all positions
    out = net.forward_bag(x)
    assert_close(out.logits[0, 0], expected.log_odds)
    assert_close(out.attention[0, :, 0], expected.instances / run)


def test_window_mil_untrained_gives_constant_output():
    net, bag = WindowMIL(5, 1), torch.rand(2, 30, 5)
    assert len(net(bag).unique()) == 1
    attention = net.forward_bag(bag).attention
    assert_close(attention, attention.flip(1))


def test_window_mil_of_an_empty_bag_has_the_bias_as_logit():
    net = fill(WindowMIL(5, 3, half_width=1.0))
    for bag, mask in ((torch.zeros(1, 0, 5), None), (torch.full((1, 4, 5), torch.nan), torch.zeros(1, 4) > 0)):
        assert_close(net(bag, mask)[0], net.bias)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"half_width": 0.0}, "`half_width` must be positive and finite, got 0.0"),
        ({"half_width": "5"}, "`half_width` must be positive and finite, got '5'"),
        ({"half_width": 31.0}, r"`half_width` must be in \(0, 30\], got 31.0"),
        ({"softness": 0.0}, "`softness` must be positive and finite, got 0.0"),
        ({"softness": float("inf")}, "`softness` must be positive and finite, got inf"),
        ({"reach": 0}, "`reach` must be a positive integer, got 0"),
    ],
)
def test_window_mil_rejects_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        WindowMIL(5, 2, **options)
