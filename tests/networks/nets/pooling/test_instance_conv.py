"""Tests of InstanceConvMIL beyond the laws of all networks, which are in tests/contracts."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from monai_mil_ext.losses import MultiLabelLoss
from monai_mil_ext.networks.nets import InstanceConvMIL
from tests.helpers import fill

X = torch.tensor(np.cos(np.arange(2 * 9 * 3) * 0.37).reshape(2, 9, 3))


def scores_by_hand(net, bag):
    """Compute scores (N, C) of one bag (N, F), instance by instance, from the equation."""
    weight, bias = net.mix.weight.detach().numpy()[:, 0], net.mix.bias.detach().numpy()
    last, offset = net.classify.weight.detach().numpy(), net.classify.bias.detach().numpy()
    size, before = weight.shape[1], (weight.shape[1] - 1) // 2
    rows = []
    for n in range(len(bag)):
        h = bias.copy()
        for t in range(size):
            k = n + t - before
            if 0 <= k < len(bag):
                h += weight[:, t] * bag[k].numpy()
        rows.append(last @ h + offset)
    return np.stack(rows)


@pytest.mark.parametrize("kernel_size", [1, 4, 5, 12])
def test_instance_conv_mil_matches_equation(kernel_size):
    net = fill(InstanceConvMIL(3, 2, kernel_size)).double()
    out = net.forward_bag(X)
    for i, bag in enumerate(X):
        expected = scores_by_hand(net, bag)
        assert_close(out.scores[i], torch.tensor(expected), rtol=1e-12, atol=1e-12)
        assert_close(out.logits[i], torch.tensor(expected.max(0)), rtol=1e-12, atol=1e-12)
        assert_close(out.attention[i], torch.tensor(expected).softmax(0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel_size", [3, 4])
def test_instance_conv_mil_matches_same_padding_of_pytorch(kernel_size):
    net = fill(InstanceConvMIL(3, 1, kernel_size)).double()
    same = torch.nn.Conv1d(3, 3, kernel_size, groups=3, padding="same").double()
    same.load_state_dict(net.mix.state_dict())
    assert_close(net.forward_bag(X).scores, net.classify(same(X.transpose(1, 2)).transpose(1, 2)))


def test_instance_conv_mil_has_the_published_number_of_parameters():
    """Count a kernel of 12 and a bias for each of 768 features, and a linear layer."""
    assert sum(p.numel() for p in InstanceConvMIL(768, 1, 12).parameters()) == 768 * 13 + 769


@given(st.lists(st.booleans(), min_size=1, max_size=9))
def test_instance_conv_mil_ignores_padding_between_instances(real):
    net, mask = fill(InstanceConvMIL(3, 2, 4)).double(), torch.tensor([real])
    bag = X[:1, : len(real)]
    apart = net.forward_bag(bag.where(mask[..., None], torch.nan), mask)
    together = net.forward_bag(bag[:, mask[0]])
    assert_close(apart.logits, together.logits)
    assert_close(apart.scores[mask], together.scores[0])


def test_instance_conv_mil_trained_on_instance_labels_detects_a_run():
    """Shift a run of seven noisy instances by one deviation, which is visible only in sums over neighbors."""
    generator = torch.Generator().manual_seed(0)
    x, label = torch.randn(64, 20, 2, generator=generator), torch.zeros(64, 20)
    for i, start in enumerate(torch.randint(0, 14, (64,), generator=generator)):
        label[i, start : start + 7] = 1
    x[..., 0] += label
    aurocs = {}
    for kernel_size in (1, 7):
        torch.manual_seed(0)
        net = InstanceConvMIL(2, 1, kernel_size)
        optimizer = torch.optim.Adam(net.parameters(), 0.05)
        for _ in range(60):
            optimizer.zero_grad()
            MultiLabelLoss()(net.forward_bag(x[:48]).scores[..., 0], label[:48]).backward()
            optimizer.step()
        scores = net.forward_bag(x[48:]).scores[..., 0].detach()
        positive = label[48:] > 0
        higher = scores[positive][:, None] > scores[~positive][None]
        aurocs[kernel_size] = higher.double().mean().item()
    assert aurocs[7] > aurocs[1] + 0.08
    assert aurocs[7] > 0.85


@pytest.mark.parametrize("name", ["in_features", "num_classes", "kernel_size"])
def test_instance_conv_mil_rejects_bad_sizes(name):
    with pytest.raises(ValueError, match=f"`{name}` must be a positive integer, got 0"):
        InstanceConvMIL(**{"in_features": 3, "num_classes": 1, "kernel_size": 3, name: 0})
