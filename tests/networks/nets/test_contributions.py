"""Tests that signed contributions are reported in the place of the attention."""

import pytest
import torch
from torch.testing import assert_close

from monai_mil_ext.networks.nets import ABMIL, AdditiveMIL, BagEnsemble, ContributionWrapper, StandardizedNet
from tests.helpers import fill

X, MASK = torch.randn(2, 6, 5).double(), torch.arange(6) < torch.tensor([[6], [3]])


def standardized(seed):
    net = StandardizedNet(fill(AdditiveMIL(5, 2, hidden_size=4)), 5).double().eval()
    return net.set_statistics([seed] * 5, [2.0] * 5, output_mean=7.0, output_scale=3.0 + seed)


def test_contributions_sum_to_the_logits_and_are_signed():
    net = ContributionWrapper(fill(AdditiveMIL(5, 3, hidden_size=4)).double().eval())
    out = net(X.where(MASK[..., None], torch.nan), MASK)
    assert_close(out["attention"].sum(1), out["logits"])
    assert_close(out["logits"], net.net(X, MASK), rtol=0, atol=0)
    assert (out["attention"] < 0).any()
    assert (out["attention"] > 0).any()
    assert not out["attention"][~MASK].any()
    assert not net._taps[0]._forward_hooks


def test_contributions_of_a_regression_are_in_the_unit_of_its_targets():
    out = ContributionWrapper(standardized(1.0))(X, MASK)
    assert_close(out["attention"].sum(1) + 7, out["logits"])


def test_contributions_of_an_ensemble_are_means_over_its_members():
    members = [standardized(1.0), standardized(2.0)]
    out = ContributionWrapper(BagEnsemble(members, "regression"))(X, MASK)
    assert_close(out["attention"].sum(1) + 7, (members[0](X, MASK) + members[1](X, MASK)) / 2)


def test_a_network_without_contributions_is_refused():
    with pytest.raises(ValueError, match="`net` must be AdditiveMIL, or consist of such networks, got ABMIL"):
        ContributionWrapper(ABMIL(5, 2))
