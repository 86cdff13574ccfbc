"""Tests of RebinnedSurvivalNet: its values and what it refuses; common laws are in tests/contracts."""

import pytest
import torch

from monai_mil_ext.networks.nets import RebinnedSurvivalNet
from monai_mil_ext.networks.nets.bag_net import BagNet, BagOutput


class Constant(BagNet):
    """Network whose logits are given."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.tensor([logits])

    def forward_bag(self, x, mask=None):
        return BagOutput(self.logits, None, None, None)


def survival(logits):
    return (1 - logits.sigmoid()).cumprod(dim=1)


def test_its_own_bins_change_nothing():
    net = Constant([-60.0, -3.0, 0.5, 4.0, 60.0])
    same = RebinnedSurvivalNet(net, [1.0, 2.0, 5.0, 9.0], [1.0, 2.0, 5.0, 9.0])(torch.zeros(1, 1, 1))
    torch.testing.assert_close(same, net.logits, rtol=1e-5, atol=1e-5)


def test_survival_is_that_of_constant_hazards_within_the_bins():
    net = Constant([-1.0, 0.5, 2.0])
    new = survival(RebinnedSurvivalNet(net, [4.0, 8.0], [1.0, 6.0])(torch.zeros(1, 1, 1)))[0]
    first, second, last = survival(net.logits)[0].double()
    expected = torch.stack([first**0.25, first * (second / first) ** 0.5, last])
    torch.testing.assert_close(new.double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("value", [-300.0, 300.0])
def test_saturated_logits_stay_finite_with_their_gradients(value):
    logits = torch.full((1, 3), value, requires_grad=True)
    net = Constant([0.0] * 3)
    net.logits = logits
    new = RebinnedSurvivalNet(net, [4.0, 8.0], [1.0, 6.0])(torch.zeros(1, 1, 1))
    new.sum().backward()
    assert new.isfinite().all()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    ("edges", "new_edges", "match"),
    [
        ([], [1.0], "`edges` must be positive and increase, got \\[\\]"),
        ([2.0, 1.0], [1.0], "`edges` must be positive and increase"),
        ([1.0], [1.0, 1.0], "`new_edges` must be positive and increase"),
        ([1.0], [0.0], "`new_edges` must be positive and increase"),
        ([1.0, 4.0], [2.0, 5.0], "`new_edges` must be at most the last of `edges`, 4, got 5"),
    ],
)
def test_it_refuses_edges(edges, new_edges, match):
    with pytest.raises(ValueError, match=match):
        RebinnedSurvivalNet(Constant([0.0, 0.0]), edges, new_edges)


def test_it_refuses_a_network_with_other_bins():
    with pytest.raises(ValueError, match="`net` must have 2 logits, got 3"):
        RebinnedSurvivalNet(Constant([0.0] * 3), [1.0], [1.0])(torch.zeros(1, 1, 1))
