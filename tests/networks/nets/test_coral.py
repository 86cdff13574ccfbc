"""Tests of CORAL: decreasing probabilities and biases; the laws of all networks are in tests/contracts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from monai_mil_ext.losses import OrdinalLoss, ordinal_probabilities
from monai_mil_ext.networks.nets import ABMIL, ACMIL, CORAL, QGMIL, SmAP, TransMIL
from tests.helpers import bags, fill

C = 5
some_biases = st.lists(st.floats(-8, 8), min_size=C - 1, max_size=C - 1)
some_bags = bags(4, max_batch=6, dtype=torch.float64)


def coral(biases):
    net = fill(CORAL(ABMIL(4, 1), C)).double()
    net.biases.data = torch.tensor(biases, dtype=torch.float64)
    return net


@given(batch=some_bags, biases=some_biases)
def test_coral_with_decreasing_biases_has_decreasing_probabilities(batch, biases):
    net = coral(sorted(biases, reverse=True))
    logits = net(*batch)
    assert_close(logits, net.net(*batch) + net.biases)
    above = logits.sigmoid()
    assert (above.diff(dim=1) <= 0).all()
    ends = torch.ones(len(above), 1), above, torch.zeros(len(above), 1)
    assert_close(ordinal_probabilities(logits), -torch.cat(ends, 1).diff(dim=1), rtol=1e-9, atol=1e-12)


@given(batch=some_bags, biases=some_biases, seed=st.integers(0, 2**16))
def test_coral_loss_is_not_increased_by_sorting_biases(batch, biases, seed):
    """Check the rearrangement inequality: no more labels are above k + 1 than above k."""
    torch.manual_seed(seed)
    label, loss = torch.randint(0, C, (len(batch[0]),)), OrdinalLoss()
    assert loss(coral(sorted(biases, reverse=True))(*batch), label) <= loss(coral(biases)(*batch), label) + 1e-12


@given(seed=st.integers(0, 2**16), scale=st.sampled_from([0.1, 1.0, 5.0]))
def test_coral_optimal_biases_decrease(seed, scale):
    """Solve sum_b sigma(g_b + beta_k) = number of labels above k for each bias by bisection."""
    torch.manual_seed(seed)
    x, label = torch.randn(12, 5, 4).double() * scale, torch.randint(0, C, (12,))
    label[:2] = torch.tensor([0, C - 1])  # all classes occur, so that no bias is infinite
    net = coral([0.0] * (C - 1))
    g, above = net.net(x).detach(), (label.unsqueeze(1) > torch.arange(C - 1)).sum(0)
    low, high = torch.full((2, C - 1), 1e3, dtype=torch.float64) * torch.tensor([[-1], [1]])
    for _ in range(80):
        middle = (low + high) / 2
        less = (g + middle).sigmoid().sum(0) < above
        low, high = torch.where(less, middle, low), torch.where(less, high, middle)
    net.biases.data = middle
    OrdinalLoss()(net(x), label).backward()
    assert_close(net.biases.grad, torch.zeros(C - 1, dtype=torch.float64), rtol=0, atol=1e-9)
    assert (middle.diff() <= 1e-9).all()


def test_ordinal_loss_without_coral_can_give_inconsistent_probabilities():
    net = nn.Linear(1, 2)
    net.load_state_dict({"weight": torch.tensor([[1.0], [2.0]]), "bias": torch.tensor([1.0, 0.0])})
    assert (net(torch.tensor([[0.0], [3.0]])).diff(dim=1) <= 0).flatten().tolist() == [True, False]


def test_coral_training_orders_biases():
    x, label = torch.randn(40, 6, 4), torch.arange(40) % C
    net = fill(CORAL(ABMIL(4, 1), C)).train()
    net.biases.data = torch.arange(C - 1.0)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        OrdinalLoss()(net(x), label).backward()
        optimizer.step()
    assert (net.biases.diff() < 0).all()


@pytest.mark.parametrize("inner", [ABMIL(4, 1), ACMIL(4, 1), SmAP(4, 1), TransMIL(4, 1, 8, 2), QGMIL(4, 1)])
def test_coral_has_class_attributes_of_its_network(inner):
    net = CORAL(inner, 3).eval()
    names = "permutation_invariant", "attention_is_distribution", "exports_dynamic_n", "gives_scores"
    for name in (*names, "logits_see_all_weights", "is_traceable"):
        assert getattr(net, name) == getattr(inner, name)
    x = torch.randn(2, 5, 4)
    assert_close(net.forward_bag(x)[1:], inner.forward_bag(x)[1:], rtol=0, atol=0)
    assert dict(net.named_modules())["score_tap"] is inner.score_tap


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_coral_is_initialized_for_equally_frequent_classes(num_classes):
    net = CORAL(ABMIL(4, 1), num_classes)
    for p in net.net.classify.parameters():
        nn.init.zeros_(p)
    logits, label = net(torch.randn(num_classes, 5, 4)), torch.arange(num_classes)
    assert_close(ordinal_probabilities(logits), torch.full((num_classes, num_classes), 1 / num_classes))
    OrdinalLoss()(logits, label).backward()
    assert_close(net.biases.grad, torch.zeros(num_classes - 1), rtol=0, atol=1e-6)
    assert_close(net.net.classify.bias.grad, torch.zeros(1), rtol=0, atol=1e-6)


def test_coral_rejects_bad_arguments():
    with pytest.raises(ValueError, match="`num_classes` must be at least 2, got 1"):
        CORAL(ABMIL(4, 1), 1)
    with pytest.raises(ValueError, match="`num_classes` must be a positive integer, got 0"):
        CORAL(ABMIL(4, 1), 0)
    with pytest.raises(ValueError, match="`net` must have one output, got 2"):
        CORAL(ABMIL(4, 2), 3)(torch.zeros(1, 5, 4))
