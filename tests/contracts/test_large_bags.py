"""Test that networks whose time grows with N compute a slide of a million tiles in float32 as in float64."""

import copy

import pytest
import torch
from torch.testing import assert_close

from tests.contracts.laws import attention_is_a_distribution, claimed
from tests.contracts.net_cases import CASES, F
from tests.helpers import fill

# time grows with N squared; TransMIL takes half a minute, and PyTorch's fused attention gives its logits to 1e-3 only;
# a recurrent network takes a million steps one after another; the chain of MarkovMIL needs gigabytes; centered
# contributions are differences of values of about one, which round to the same side where instances are alike
OTHERS = ("AdditiveMIL-centered", "MarkovMIL", "QGMIL", "RecurrentMIL", "SequenceTransMIL", "SmTP", "TransMIL")
LINEAR = {name: make for name, make in CASES.items() if not name.startswith(OTHERS)}


@torch.no_grad()
@pytest.mark.slow(buys="attention of a million tiles, most of them alike, sums to one within 1e-5")
@pytest.mark.parametrize("make", LINEAR.values(), ids=LINEAR)
def test_a_million_instances_in_float32_are_those_of_float64(make):
    """Most instances are alike, as empty tiles are: sums one by one would all round to the same side."""
    net = fill(make()).eval()
    x = torch.full((1, 1_000_000, F), 0.3)
    x[:, ::100] = torch.randn(1, 10_000, F, generator=torch.Generator().manual_seed(0))
    narrow, wide = net.forward_bag(x), copy.deepcopy(net).double().forward_bag(x.double())
    assert_close(narrow.logits.double(), wide.logits, rtol=1e-4, atol=1e-4)
    assert_close(narrow.attention.double().sum(1), wide.attention.sum(1), rtol=0, atol=1e-5)
    if claimed(attention_is_a_distribution, make):
        assert_close(wide.attention.sum(1), torch.ones_like(wide.attention[:, 0]), rtol=0, atol=1e-9)
