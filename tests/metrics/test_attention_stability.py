"""Tests of divergence, uniformity and stability of attention: known values, bounds, padding."""

import math

import pytest
import torch
from hypothesis import given
from torch.testing import assert_close

from monai_mil_ext.metrics import attention_changes, attention_divergence, attention_instability, attention_uniformity
from monai_mil_ext.networks.layers import masked_softmax
from tests.helpers import bags


def test_attention_divergence_of_disjoint_attention_is_log_two():
    a = torch.tensor([1.0, 0, 0]).view(1, 3, 1)
    assert_close(attention_divergence(a, a.roll(1, 1)).item(), math.log(2), rtol=0, atol=1e-5)


def test_attention_divergence_by_hand():
    p, q = torch.tensor([0.9, 0.1]).view(1, 2, 1), torch.tensor([0.4, 0.6]).view(1, 2, 1)
    by_hand = 0.5 * (0.9 * math.log(0.9 / 0.65) + 0.1 * math.log(0.1 / 0.35))
    by_hand += 0.5 * (0.4 * math.log(0.4 / 0.65) + 0.6 * math.log(0.6 / 0.35))
    assert_close(attention_divergence(p, q).item(), by_hand, rtol=0, atol=1e-6)


@given(bag=bags(4, dtype=torch.float64))
def test_attention_divergence_is_symmetric_bounded_and_zero_for_equals(bag):
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


def test_attention_divergence_refuses_different_shapes():
    with pytest.raises(ValueError, match=r"`other` must have shape \(1, 3, 1\), got \(1, 2, 1\)"):
        attention_divergence(torch.ones(1, 3, 1), torch.ones(1, 2, 1))


def test_attention_uniformity_of_uniform_and_one_hot_attention():
    mask = torch.arange(6) < torch.tensor([[6], [4], [1], [0]])
    uniform = mask.unsqueeze(-1) / mask.sum(1).clamp(min=1).view(-1, 1, 1)
    assert_close(attention_uniformity(uniform, mask).flatten()[:2], torch.ones(2))
    assert attention_uniformity(uniform, mask).flatten()[2:].isnan().all()
    assert not attention_uniformity(torch.eye(6)[:2].unsqueeze(-1)).any()


def test_attention_uniformity_is_normalized_entropy():
    a = torch.tensor([0.5, 0.25, 0.25])
    padded = torch.cat([a, torch.tensor([torch.nan])]).nan_to_num().view(1, 4, 1)
    share = attention_uniformity(padded, torch.tensor([[True, True, True, False]])).item()
    assert_close(share, -(a * a.log()).sum().item() / math.log(3))


def test_attention_changes_are_those_of_each_bag_by_name():
    last = {"b": torch.tensor([0.25, 0.75]), "a": torch.tensor([1.0, 0.0, 0.0])}
    now = {"a": torch.tensor([0.0, 0.5, 0.5]), "b": torch.tensor([0.25, 0.75])}
    changes = attention_changes(now, last)
    assert list(changes) == ["a", "b"]
    assert_close(changes["a"]["jsd"], math.log(2), rtol=0, atol=1e-5)
    assert changes["b"]["jsd"] == 0
    assert_close(changes["a"]["uniformity"], math.log(2) / math.log(3))
    first = attention_changes(now)
    assert math.isnan(first["a"]["jsd"])
    assert first["b"]["uniformity"] == changes["b"]["uniformity"]


def test_attention_changes_refuses_other_bags():
    current, other = {"a": torch.ones(2), "b": torch.ones(3)}, {"a": torch.ones(2), "c": torch.ones(3)}
    with pytest.raises(ValueError, match="must be of the bags of the previous epoch, got b, c in one only"):
        attention_changes(current, other)
    with pytest.raises(ValueError, match=r"of bag 'b' must have shape \(4,\) as in the previous epoch, got \(3,\)"):
        attention_changes(current, current | {"b": torch.ones(4)})


def test_attention_instability_averages_over_time_before_bags():
    """Bags 0.2 and 0.4 over time: the deviation is that of bags (with n - 1), not of epochs."""
    summary = attention_instability(torch.tensor([[0.1, 0.1], [0.3, 0.7]]))
    assert summary == pytest.approx({"jsd": 0.3, "jsd_sd": math.sqrt(0.02), "jsd_share": 0.3 / math.log(2)})
    assert all(math.isnan(value) for value in attention_instability(torch.zeros(0, 3)).values())
    assert math.isnan(attention_instability(torch.zeros(2, 1))["jsd_sd"])
