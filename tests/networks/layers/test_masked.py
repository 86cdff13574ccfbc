"""Tests of masked_softmax, masked_max, zero_out_padding and attention_pool."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from monai_mil_ext.networks.layers import attention_pool, masked_log_softmax, masked_max, masked_softmax
from monai_mil_ext.networks.layers.masked import zero_out_padding
from tests.helpers import bags

JUNK = st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e30])
MASK = torch.tensor([[True, True, False], [False, False, False]])


@given(batch=bags(2), junk=JUNK)
def test_masked_softmax_equals_softmax_of_valid_instances(batch, junk):
    scores, mask = batch
    dirty = scores.where(mask[..., None], junk).requires_grad_()
    attention = masked_softmax(dirty, mask)
    weight = torch.arange(attention.numel()).view_as(attention).cos()
    attention.mul(weight).sum().backward()
    assert not attention[~mask].any()
    assert not dirty.grad[~mask].any()
    for i, real in enumerate(mask):
        alone = scores[i, real].detach().requires_grad_()
        alone.softmax(0).mul(weight[i, real]).sum().backward()
        assert_close(attention[i, real], alone.softmax(0))
        assert_close(dirty.grad[i, real], alone.grad)


@given(batch=bags(2, dtype=torch.float64))
def test_masked_softmax_without_mask_equals_full_mask(batch):
    scores, mask = batch
    assert_close(masked_softmax(scores, None), masked_softmax(scores, torch.ones_like(mask)), rtol=0, atol=1e-15)


@pytest.mark.parametrize("junk", [0.0, float("nan"), float("inf")])
def test_masked_softmax_of_an_empty_bag_is_zero_without_nan(junk):
    scores = torch.full((2, 3, 1), junk)
    scores[0, :2] = 0.0
    scores.requires_grad_()
    with torch.autograd.set_detect_anomaly(True):  # detects NaN that a later mask would hide
        attention = masked_softmax(scores, MASK)
        attention.square().sum().backward()
    assert attention.flatten().tolist() == [0.5, 0.5, 0, 0, 0, 0]
    assert scores.grad.flatten().tolist() == [0] * 6


def test_masked_softmax_of_large_scores_does_not_overflow():
    scores = torch.tensor([[1e4], [1e4 - 1.0], [-1e4]]).unsqueeze(0)
    assert_close(masked_softmax(scores, None)[0, :, 0], torch.tensor([0.7310586, 0.2689414, 0.0]))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
    ids=str,
)
@pytest.mark.parametrize("mask", [None, torch.ones(1, 3000, dtype=torch.bool)], ids=["all", "mask"])
def test_masked_softmax_and_attention_pool_compute_in_float32(given, expected, mask):
    """Check sums of 3000 equal weights: in bfloat16 each has an error of 2e-3; BLAS sums float32 to 3e-5."""
    scores, h = torch.zeros(1, 3000, 1, dtype=given), torch.ones(1, 3000, 2, dtype=given)
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            attention = masked_softmax(scores, mask)
            pooled = attention_pool(attention, h)
        assert attention.dtype == pooled.dtype == expected
        assert_close(attention.sum(1).item(), 1.0, rtol=0, atol=1e-5)
        assert_close(pooled, torch.ones_like(pooled), rtol=0, atol=1e-4)


def large_bag(kind, size=2_000_000, num_heads=3):
    """Return scores (1, N, H) of a slide; of alike tiles, sums one by one would all round to the same side."""
    z = torch.randn(1, size, num_heads, generator=torch.Generator().manual_seed(0))
    background = {"random": z, "alike": torch.full_like(z, -10.0), "two kinds": torch.where(z > 0, -9.7, -3.3)}[kind]
    return torch.where(torch.arange(size).view(1, -1, 1) % 50_000 == 0, z, background)


@pytest.mark.parametrize("kind", ["random", "alike", "two kinds"])
@pytest.mark.parametrize("with_mask", [False, True])
def test_masked_softmax_of_millions_is_that_of_float64(kind, with_mask):
    z = large_bag(kind)
    mask = torch.ones(z.shape[:2], dtype=torch.bool) if with_mask else None
    exact = z.double().softmax(1)
    attention = masked_softmax(z, mask)
    assert_close(attention.double().sum(1), torch.ones(1, 3).double(), rtol=0, atol=1e-6)
    assert_close(attention.double(), exact, rtol=3e-6, atol=0)
    assert_close(masked_log_softmax(z, mask).double(), z.double().log_softmax(1), rtol=0, atol=3e-6)


@pytest.mark.parametrize("kind", ["random", "alike", "two kinds"])
def test_masked_softmax_of_millions_has_the_gradient_of_float64(kind):
    z, slope = large_bag(kind, 500_000), large_bag("random", 500_000).cos()
    gradients = []
    for dtype in (torch.float32, torch.float64):
        scores = z.to(dtype, copy=True).requires_grad_()
        masked_softmax(scores, None).mul(slope.to(dtype)).sum().backward()
        gradients.append(scores.grad.double())
    assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6 * gradients[1].abs().max().item())


@pytest.mark.parametrize("kind", ["random", "alike", "two kinds"])
@pytest.mark.parametrize(("num_heads", "size"), [(1, 5), (3, 2)])
def test_attention_pool_of_millions_is_that_of_float64(kind, num_heads, size):
    attention = masked_softmax(large_bag(kind, num_heads=num_heads), None)
    h = 0.7 + 0.01 * large_bag("random", num_heads=size)
    exact = torch.bmm(attention.double().transpose(1, 2), h.double())
    assert_close(attention_pool(attention, h).double(), exact, rtol=1e-5, atol=0)


def test_attention_pool_in_parts_has_the_gradients_of_one_product():
    attention, h = torch.rand(2, 40_000, 2, requires_grad=True), torch.rand(2, 40_000, 3, requires_grad=True)
    slope = torch.rand(2, 2, 3)
    parts = torch.autograd.grad(attention_pool(attention, h).mul(slope).sum(), [attention, h])
    whole = torch.autograd.grad(torch.bmm(attention.transpose(1, 2), h).mul(slope).sum(), [attention, h])
    assert_close(parts, whole)


@given(batch=bags(3, dtype=torch.float64), num_heads=st.integers(1, 3))
def test_attention_pool_is_the_weighted_sum(batch, num_heads):
    h, mask = batch
    attention = masked_softmax(h[..., :num_heads], mask)
    expected = [[(attention[b, :, k, None] * h[b]).sum(0) for k in range(num_heads)] for b in range(len(h))]
    assert_close(attention_pool(attention, h), torch.stack([torch.stack(rows) for rows in expected]))


@given(batch=bags(2), junk=JUNK)
def test_zero_out_padding_clears_values_and_gradients(batch, junk):
    x, mask = batch
    dirty = x.where(mask[..., None], junk).requires_grad_()
    clean = zero_out_padding(dirty, mask)
    (clean.square().sum()).backward()
    assert_close(clean, x.where(mask[..., None], 0.0), rtol=0, atol=0)
    assert_close(dirty.grad, 2 * clean)


def test_zero_out_padding_without_mask_makes_no_copy():
    x = torch.zeros(1, 2, 3)
    assert zero_out_padding(x, None) is x


@given(batch=bags(4, dtype=torch.float64), junk=JUNK)
def test_masked_max_is_the_maximum_of_valid_instances(batch, junk):
    h, mask = batch
    dirty = h.where(mask[..., None], junk).requires_grad_()
    values, share = masked_max(dirty, mask)
    values.square().sum().backward()
    assert not share[~mask].any()
    assert not dirty.grad[~mask].any()
    for i, real in enumerate(mask):
        best, winner = h[i, real].max(0)
        assert_close(values[i], best)
        assert_close(share[i, real, 0], torch.bincount(winner, minlength=int(real.sum())).double() / 4)
        assert_close(dirty.grad[i, winner, torch.arange(4)], 2 * best)
    assert_close(masked_max(h, None), masked_max(h, torch.ones_like(mask)))


def test_masked_max_takes_the_first_of_equal_instances():
    values, share = masked_max(torch.tensor([[[0.0, 1.0], [2.0, 1.0], [2.0, 1.0]]]), None)
    assert values.tolist() == [[2.0, 1.0]]
    assert share.flatten().tolist() == [0.5, 0.5, 0.0]


def test_masked_max_of_an_empty_bag_is_zero():
    h = torch.randn(2, 3, 4, requires_grad=True)
    for given_h, mask in ((h, torch.zeros(2, 3, dtype=torch.bool)), (h[:, :0], None)):
        values, share = masked_max(given_h, mask)
        values.square().sum().backward()
        assert (values.shape, share.shape) == ((2, 4), (2, given_h.shape[1], 1))
        assert not values.any()
        assert not share.any()
    assert not h.grad.any()


def test_masked_max_fractions_are_float32():
    h = torch.randn(1, 5, 3000).bfloat16()
    values, share = masked_max(h, None)
    assert (values.dtype, share.dtype) == (torch.bfloat16, torch.float32)
    assert_close(share.sum().item(), 1.0, rtol=0, atol=1e-6)


def test_zero_out_padding_copies_no_batch_whose_padding_is_zero():
    x, mask = torch.rand(3, 5, 2), torch.arange(5) < torch.tensor([[2], [5], [0]])
    zeros = x.masked_fill(~mask.unsqueeze(-1), 0)
    assert zero_out_padding(zeros, mask) is zeros
    assert zero_out_padding(x, torch.ones_like(mask)) is x
    assert zero_out_padding(zeros[:0], mask[:0]).shape == (0, 5, 2)
    for junk in (float("nan"), float("inf"), -1e-45, 1e30):
        for place in ((0, 4, 1), (2, 0, 0)):
            dirty = zeros.clone()
            dirty[place] = junk
            assert torch.equal(zero_out_padding(dirty, mask), zeros)
            assert not torch.equal(dirty, zeros)


def test_zero_out_padding_has_no_gradient_at_padding_that_is_zero():
    zeros, mask = torch.zeros(1, 3, 2, requires_grad=True), torch.tensor([[True, True, False]])
    (gradient,) = torch.autograd.grad(zero_out_padding(zeros, mask).sum(), zeros)
    assert torch.equal(gradient[0, :, 0], torch.tensor([1.0, 1.0, 0.0]))
    with torch.no_grad():
        assert zero_out_padding(zeros, mask) is zeros
