"""Tests of the pairs of networks that are compared."""

import importlib.util

import pytest
import torch

from tests.benchmarks.peers import PEERS, steps_of

THERE = [name for name in PEERS if not name.startswith("torchmil") or importlib.util.find_spec("torchmil")]


@pytest.mark.parametrize("name", THERE)
def test_both_have_as_many_weights_and_no_dropout(name):
    pair = PEERS[name]()
    x = torch.randn(1, 6, pair.features)
    for net in (pair.theirs.train(), pair.ours.train()):
        torch.testing.assert_close(net(x), net(x))
    theirs, ours = (sum(p.numel() for p in net.parameters()) for net in (pair.theirs, pair.ours))
    assert ours == pytest.approx(theirs, rel=0.03)


@pytest.mark.parametrize("name", THERE)
def test_both_sides_train(name):
    calls, features = steps_of(name)
    assert list(calls) == [name.split("_")[0], "ours"]
    for call in calls.values():
        call(torch.randn(1, 6, features))
