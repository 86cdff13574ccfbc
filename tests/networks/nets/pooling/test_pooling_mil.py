"""Tests of mean and max pooling beyond the laws of all networks, which are in tests/contracts."""

import pytest
import torch
from torch.testing import assert_close

from monai_mil_ext.networks.nets import InstanceMaxMIL, MaxMIL, MeanMIL

X, MASK = torch.randn(2, 6, 4), torch.arange(6) < torch.tensor([[6], [2]])


def test_mean_mil_has_known_values():
    net = MeanMIL(4, 2)
    out = net.forward_bag(X, MASK)
    assert_close(out.embedding, torch.stack([X[0].mean(0), X[1, :2].mean(0)]))
    assert_close(out.logits, net.classify(out.embedding))
    assert_close(out.attention[1].flatten(), torch.tensor([0.5, 0.5, 0, 0, 0, 0]))
    assert_close(out.logits[1], net.classify(X[1, :2]).mean(0))


def test_max_mil_has_known_values():
    net = MaxMIL(4, 2)
    out = net.forward_bag(X, MASK)
    assert_close(out.embedding, torch.stack([X[0].amax(0), X[1, :2].amax(0)]), rtol=0, atol=0)
    assert_close(out.logits, net.classify(out.embedding))
    shares = torch.stack([X[0].argmax(0).bincount(minlength=6), X[1, :2].argmax(0).bincount(minlength=6)]) / 4
    assert_close(out.attention.squeeze(-1), shares)


def test_max_mil_takes_the_first_of_equal_instances():
    assert MaxMIL(3, 1).forward_bag(torch.ones(1, 4, 3)).attention.flatten().tolist() == [1, 0, 0, 0]


def test_instance_max_mil_attends_to_the_maximum_of_each_class():
    net = InstanceMaxMIL(4, 3)
    out = net.forward_bag(X, MASK)
    assert_close(out.scores[1, :2], net.classify(X[1, :2]))
    for bag, n, logits, attention in zip(X, (6, 2), out.logits, out.attention, strict=True):
        best = net.classify(bag[:n]).max(0)
        assert_close(logits, best.values)
        assert attention.argmax(0).tolist() == best.indices.tolist()
    assert not InstanceMaxMIL(4, 3)(X[:, :0]).any()


@pytest.mark.parametrize("net", [MeanMIL, MaxMIL, InstanceMaxMIL])
def test_mean_mil_and_max_mil_reject_sizes_that_are_not_positive(net):
    with pytest.raises(ValueError, match="`num_classes` must be a positive integer, got 0"):
        net(4, 0)
