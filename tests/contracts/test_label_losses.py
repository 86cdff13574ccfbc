"""Laws of all losses on logits and bag labels; ``label_loss_cases`` lists them."""

import inspect

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from monai_mil_ext import losses
from monai_mil_ext.losses import (
    CoxLoss,
    LabelLoss,
)
from tests.contracts.label_loss_cases import CASES, K, every_loss

some_batch = given(size=st.integers(1, 6), seed=st.integers(0, 2**16), scale=st.sampled_from([0.01, 1.0, 50.0]))


def batch(labels, size, seed, scale=1.0, dtype=torch.float64):
    torch.manual_seed(seed)
    return torch.randn(size, K, dtype=dtype) * scale, labels(size)


def value_and_gradient(loss, z, label):
    z = z.clone().requires_grad_()
    value = loss(z, label)
    value.sum().backward()
    return value.detach(), z.grad


def test_every_label_loss_has_a_case():
    parts = {getattr(losses, name) for name in losses.__all__}
    ours = {part for part in parts if inspect.isclass(part) and issubclass(part, LabelLoss)} - {LabelLoss}
    ours -= {CoxLoss}  # compares the bags of a batch: tests/losses/test_cox.py
    assert ours == {loss for loss, _, _ in CASES.values()}


@every_loss
@some_batch
def test_label_loss_law_order_of_bags_changes_nothing(loss, options, labels, size, seed, scale):
    z, label = batch(labels, size, seed, scale)
    order = torch.randperm(size)
    value, gradient = value_and_gradient(loss(**options), z, label)
    turned, turned_gradient = value_and_gradient(loss(**options), z[order], label[order])
    assert_close((turned, turned_gradient), (value, gradient[order]))


@every_loss
@some_batch
def test_label_loss_law_bags_are_independent(loss, options, labels, size, seed, scale):
    each = loss(**options, reduction="none")
    z, label = batch(labels, size, seed, scale)
    value, gradient = value_and_gradient(each, z, label)
    alone = [value_and_gradient(each, z[i : i + 1], label[i : i + 1]) for i in range(size)]
    assert_close((value, gradient), tuple(torch.cat(parts) for parts in zip(*alone, strict=True)))
    assert len(value) == size
    assert (value >= 0).all()
    assert_close(loss(**options, reduction="sum")(z, label), value.sum())


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_label_loss_law_half_precision_is_finite_and_computed_in_float32(loss, options, labels, dtype):
    for scale in (0.0, 1.0, 1000.0):
        z, label = batch(labels, 64, 0, scale, dtype)
        value, gradient = value_and_gradient(loss(**options), z, label)
        with torch.autocast("cpu", torch.bfloat16):
            assert_close(loss(**options)(z, label), value, rtol=0, atol=0)
        assert_close(value, loss(**options)(z.float(), label), rtol=0, atol=0)
        assert value.dtype == torch.float32
        assert value.isfinite()
        assert gradient.isfinite().all()


@every_loss
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_label_loss_law_gradients_are_exact(loss, options, labels, reduction):
    z, label = batch(labels, 8, 0)
    assert torch.autograd.gradcheck(lambda z: loss(**options, reduction=reduction)(z, label), z.requires_grad_())


@every_loss
def test_label_loss_law_empty_batch_is_zero(loss, options, labels):
    z = torch.zeros(0, K, requires_grad=True)
    value = loss(**options)(z, labels(0))
    value.backward()
    assert value == 0


@every_loss
def test_label_loss_law_bad_input_is_named(loss, options, labels):
    for z in (torch.zeros(3), torch.zeros(3, K).long(), torch.zeros(3, 0)):
        with pytest.raises(
            ValueError, match=r"`logits` must be floating point of shape \(B, K\) with K >= 1, got torch"
        ):
            loss(**options)(z, labels(3))
    with pytest.raises(ValueError, match=r"`.*` must have shape \(B.* = \(2.*\), got \(3"):
        loss(**options)(torch.zeros(2, K), labels(3))
    with pytest.raises(ValueError, match="`reduction` must be one of 'mean', 'sum', 'none', got 'median'"):
        loss(**options, reduction="median")
