"""Tests of MultiLabelLoss: known values, unknown labels, weights; common laws are in tests/contracts."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.testing import assert_close

from monai_mil_ext.losses import MultiLabelLoss

NAN = torch.nan


def test_multi_label_loss_matches_manual_computation():
    z, y = torch.tensor([[math.log(3), 0.0], [math.log(4), 7.0]]), torch.tensor([[1.0, 0.0], [0.0, NAN]])
    each = torch.tensor([[-math.log(3 / 4), math.log(2)], [math.log(5), 0.0]])
    assert_close(MultiLabelLoss(reduction="none")(z, y), each)
    assert_close(MultiLabelLoss()(z, y), each.sum() / 3)  # not 4, and not the mean of the means of classes
    weighted = torch.tensor([[2 * -math.log(3 / 4), math.log(2)], [math.log(5), 0.0]])
    assert_close(MultiLabelLoss([2, 9], "none")(z, y), weighted)


@given(seed=st.integers(0, 2**16), weights=st.none() | st.lists(st.floats(0.1, 9), min_size=3, max_size=3))
def test_multi_label_loss_is_cross_entropy_of_known_labels(seed, weights):
    torch.manual_seed(seed)
    z, y = torch.randn(5, 3), torch.rand(5, 3)
    known = torch.rand(5, 3) < 0.6
    known[0, 0] = True
    weight = None if weights is None else torch.tensor(weights).expand(5, 3)[known]
    expected = binary_cross_entropy_with_logits(z[known], y[known], pos_weight=weight)
    assert_close(MultiLabelLoss(weights)(z, y.masked_fill(~known, NAN)), expected)


@given(logit=st.sampled_from([7.0, -1e30, float("inf"), float("-inf")]))
def test_multi_label_loss_ignores_logits_of_unknown_labels(logit):
    y = torch.tensor([[1.0, NAN, 0.0]])
    gradients, values = [], []
    for junk in (0.0, logit):
        z = torch.tensor([[0.3, junk, -2.0]], requires_grad=True)
        values.append(MultiLabelLoss()(z, y))
        values[-1].backward()
        gradients.append(z.grad)
    assert values[0] == values[1]
    assert_close(gradients[1], gradients[0], rtol=0, atol=0)
    assert gradients[1][0, 1] == 0


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_multi_label_loss_without_known_labels_is_zero(reduction):
    z = torch.randn(2, 3, requires_grad=True)
    value = MultiLabelLoss(reduction=reduction)(z, torch.full((2, 3), NAN))
    value.sum().backward()
    assert not value.any()
    assert not z.grad.any()


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float16])
def test_multi_label_loss_takes_labels_of_any_dtype(dtype):
    z, y = torch.randn(4, 3), torch.randint(0, 2, (4, 3))
    assert_close(MultiLabelLoss()(z, y.to(dtype)), binary_cross_entropy_with_logits(z, y.float()))


def test_multi_label_loss_takes_binary_labels_without_an_axis():
    z, y = torch.randn(4, 1), torch.tensor([1.0, NAN, 0.0, 1.0])
    assert_close(MultiLabelLoss()(z, y), MultiLabelLoss()(z, y.unsqueeze(1)), rtol=0, atol=0)


def test_multi_label_loss_rejects_bad_input():
    z = torch.zeros(1, 2)
    with pytest.raises(ValueError, match=r"`label` must be from 0 to 1, or NaN if unknown, got -1.0"):
        MultiLabelLoss()(z, torch.tensor([[NAN, -1.0]]))
    with pytest.raises(ValueError, match=r"`label` must be from 0 to 1, .*, got 2.0"):
        MultiLabelLoss()(z, torch.tensor([[0, 2]]))
    with pytest.raises(ValueError, match=r"`label` must have shape \(B, C\) = \(1, 2\), got \(1, 1\)"):
        MultiLabelLoss()(z, torch.zeros(1, 1))
    with pytest.raises(ValueError, match="`pos_weight` must have C = 2 weights, got 3"):
        MultiLabelLoss([1, 1, 1])(z, z)
    with pytest.raises(ValueError, match=r"`pos_weight` must be positive, got \[1, nan\]"):
        MultiLabelLoss([1, NAN])
