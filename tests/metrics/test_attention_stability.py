"""Divergence and uniformity of attention: known values, bounds, padding."""

import math

import pytest
import torch
from hypothesis import given
from torch.testing import assert_close

from monai_mil_ext.metrics import attention_divergence, attention_uniformity
from monai_mil_ext.networks.layers import masked_softmax
from tests.helpers import bags


def test_attention_that_meets_nowhere_is_log_two_apart():
    a = torch.tensor([1.0, 0, 0]).view(1, 3, 1)
    assert_close(attention_divergence(a, a.roll(1, 1)).item(), math.log(2), rtol=0, atol=1e-5)


def test_a_value_by_hand():
    p, q = torch.tensor([0.9, 0.1]).view(1, 2, 1), torch.tensor([0.4, 0.6]).view(1, 2, 1)
    by_hand = 0.5 * (0.9 * math.log(0.9 / 0.65) + 0.1 * math.log(0.1 / 0.35))
    by_hand += 0.5 * (0.4 * math.log(0.4 / 0.65) + 0.6 * math.log(0.6 / 0.35))
    assert_close(attention_divergence(p, q).item(), by_hand, rtol=0, atol=1e-6)


@given(bag=bags(4, dtype=torch.float64))
def test_it_is_symmetric_bounded_and_zero_for_equals(bag):
    scores, mask = bag
    a, b = (masked_softmax(z, mask) for z in scores.split(2, 2))
    there = attention_divergence(a, b)
    assert there.shape == (len(scores), 2)
    assert_close(there, attention_divergence(b, a))
    assert not attention_divergence(a, a).any()
    assert (there >= 0).all()
    assert (there <= math.log(2) + 1e-6).all()
    alone = [attention_divergence(x[m][None], y[m][None])[0] for x, y, m in zip(a, b, mask, strict=True)]
    assert_close(there, torch.stack(alone))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"`other` must have shape \(1, 3, 1\), got \(1, 2, 1\)"):
        attention_divergence(torch.ones(1, 3, 1), torch.ones(1, 2, 1))


def test_uniform_attention_is_one_and_one_hot_is_zero():
    mask = torch.arange(6) < torch.tensor([[6], [4], [1], [0]])
    uniform = mask.unsqueeze(-1) / mask.sum(1).clamp(min=1).view(-1, 1, 1)
    assert_close(attention_uniformity(uniform, mask).flatten()[:2], torch.ones(2))
    assert attention_uniformity(uniform, mask).flatten()[2:].isnan().all()
    assert not attention_uniformity(torch.eye(6)[:2].unsqueeze(-1)).any()


def test_uniformity_is_entropy_over_its_largest():
    a = torch.tensor([0.5, 0.25, 0.25])
    padded = torch.cat([a, torch.tensor([torch.nan])]).nan_to_num().view(1, 4, 1)
    share = attention_uniformity(padded, torch.tensor([[True, True, True, False]])).item()
    assert_close(share, -(a * a.log()).sum().item() / math.log(3))
