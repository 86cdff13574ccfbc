"""Tests of AttentionEntropyLoss by closed forms; the laws of all losses on attention are in tests/contracts."""

import math

import pytest
import torch
from torch.testing import assert_close

from monai_mil_ext.losses import AttentionEntropyLoss


@pytest.mark.parametrize("n", [1, 2, 7, 5000])
def test_attention_entropy_of_uniform_attention(n):
    attention = torch.full((2, n, 3), 1 / n)
    assert_close(AttentionEntropyLoss()(attention).item(), -math.log(n), rtol=1e-5, atol=1e-6)
    assert_close(AttentionEntropyLoss(normalize=True)(attention).item(), -1.0 if n > 1 else 0.0, rtol=1e-5, atol=0)


def test_attention_entropy_of_one_instance_is_zero():
    attention = torch.zeros(1, 5, 1)
    attention[0, 2] = 1
    for options in ({}, {"normalize": True}, {"top_k": 2}):
        assert AttentionEntropyLoss(**options)(attention) == 0


def test_attention_entropy_gradient_has_closed_form():
    z = torch.randn(9, dtype=torch.float64, requires_grad=True)
    AttentionEntropyLoss()(z.softmax(0).view(1, 9, 1)).backward()
    a = z.detach().softmax(0)
    assert_close(z.grad, a * (a.log() - (a * a.log()).sum()), rtol=0, atol=1e-12)


def test_attention_entropy_top_k_renormalizes_the_largest_weights():
    attention = torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=torch.float64).view(1, 4, 1).requires_grad_()
    value = AttentionEntropyLoss(top_k=2)(attention)
    p = torch.tensor([4 / 7, 3 / 7], dtype=torch.float64)
    assert_close(value.detach(), (p * p.log()).sum())
    value.backward()
    assert (attention.grad.flatten() != 0).tolist() == [False, True, False, True]
    assert_close(AttentionEntropyLoss(top_k=4)(attention), AttentionEntropyLoss()(attention))
    assert_close(AttentionEntropyLoss(top_k=9)(attention), AttentionEntropyLoss()(attention))


def test_attention_entropy_normalized_does_not_depend_on_bag_size():
    attention = torch.zeros(2, 6, 1, dtype=torch.float64)
    attention[0, :2], attention[1, :6] = 1 / 2, 1 / 6
    mask = torch.arange(6) < torch.tensor([[2], [6]])
    each = AttentionEntropyLoss(normalize=True, reduction="none")(attention, mask)
    assert_close(each, torch.full((2,), -1.0, dtype=torch.float64))
    top = AttentionEntropyLoss(top_k=3, normalize=True, reduction="none")(attention, mask)
    assert_close(top, torch.full((2,), -1.0, dtype=torch.float64))


def test_attention_entropy_averages_heads():
    attention = torch.rand(2, 7, 3, dtype=torch.float64).softmax(1)
    loss = AttentionEntropyLoss()
    assert_close(loss(attention), torch.stack([loss(attention[..., i : i + 1]) for i in range(3)]).mean())


def test_attention_entropy_rejects_bad_top_k():
    with pytest.raises(ValueError, match="`top_k` must be a positive integer, got 0"):
        AttentionEntropyLoss(top_k=0)
