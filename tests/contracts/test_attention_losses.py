"""Laws of all losses on attention. A new loss adds one line to ``CASES``."""

import copy
import inspect

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from monai_mil_ext import losses
from monai_mil_ext.losses import (
    AttentionEntropyLoss,
    AttentionLoss,
    BranchDiversityLoss,
    GuidanceLoss,
    KernelGuidanceLoss,
    NormalGuidanceLoss,
)
from monai_mil_ext.networks.layers import masked_softmax
from tests.helpers import bags

CASES = {
    "forward_kl": NormalGuidanceLoss(),
    "reverse_kl": NormalGuidanceLoss("reverse_kl"),
    "squared_error": NormalGuidanceLoss("squared_error"),
    "min_sd": NormalGuidanceLoss(min_sd=1.0),
    "renormalize": NormalGuidanceLoss(renormalize=True),
    "kernel": KernelGuidanceLoss(2.0),
    "kernel_reverse_kl": KernelGuidanceLoss(0.7, "reverse_kl"),
    "kernel_squared_error": KernelGuidanceLoss(3.0, "squared_error"),
    "kernel_renormalize": KernelGuidanceLoss(2.0, renormalize=True),
    "entropy": AttentionEntropyLoss(),
    "entropy_top_k": AttentionEntropyLoss(top_k=2),
    "entropy_normalized": AttentionEntropyLoss(normalize=True),
    "diversity": BranchDiversityLoss(),
}
OTHERS = {losses.NSFKLLoss}  # on scores: test_score_losses.py
ON_ONE_INSTANCE = {BranchDiversityLoss: 1}  # all branches agree; other losses are 0
every_loss = pytest.mark.parametrize("loss", CASES.values(), ids=CASES)
some_bags = bags(in_features=2, dtype=torch.float64)


def attend(z, mask):
    return z.masked_fill(~mask.unsqueeze(-1), float("-inf")).softmax(1)


def value_and_gradient(loss, z, mask=None, junk=0.0):
    z = z.clone().requires_grad_()
    attention = z.softmax(1) if mask is None else attend(z, mask)
    if mask is not None:
        attention = attention.masked_fill(~mask.unsqueeze(-1), junk)
    value = loss(attention, mask)
    value.backward()
    return value.detach(), z.grad


def test_every_attention_loss_has_a_case():
    public = {getattr(losses, name) for name in losses.__all__}
    ours = {part for part in public if inspect.isclass(part) and issubclass(part, AttentionLoss)}
    assert ours - {AttentionLoss, GuidanceLoss} - OTHERS == {type(loss) for loss in CASES.values()}


@every_loss
@given(bag=some_bags, junk=st.sampled_from([7.0, float("nan"), float("inf"), float("-inf")]))
def test_attention_loss_law_values_at_padding_change_nothing(loss, bag, junk):
    for clean, with_junk in zip(value_and_gradient(loss, *bag), value_and_gradient(loss, *bag, junk), strict=True):
        assert_close(clean, with_junk, rtol=0, atol=0)
        assert torch.isfinite(with_junk).all()


@every_loss
@given(bag=some_bags)
def test_attention_loss_law_more_padding_changes_nothing(loss, bag):
    z, mask = bag
    n = mask.shape[1]
    wide = torch.cat([z, torch.randn_like(z)], 1), torch.cat([mask, torch.zeros_like(mask)], 1)
    value, gradient = value_and_gradient(loss, z, mask)
    wide_value, wide_gradient = value_and_gradient(loss, *wide, junk=float("nan"))
    assert_close(wide_value, value, rtol=1e-6, atol=1e-9)
    assert_close(wide_gradient[:, :n], gradient, rtol=1e-6, atol=1e-9)
    assert not wide_gradient[:, n:].any()


@every_loss
@given(bag=some_bags)
def test_attention_loss_law_batch_is_the_mean_of_independent_bags(loss, bag):
    z, mask = bag
    alone = [value_and_gradient(loss, zi[mi].unsqueeze(0)) for zi, mi in zip(z, mask, strict=True)]
    value, gradient = value_and_gradient(loss, z, mask)
    assert_close(value, torch.stack([v for v, _ in alone]).mean(), rtol=1e-6, atol=1e-9)
    for i, (_, g) in enumerate(alone):
        assert_close(gradient[i][mask[i]], g.squeeze(0) / len(z), rtol=1e-6, atol=1e-9)
    turned, turned_gradient = value_and_gradient(loss, z.flip(0), mask.flip(0))
    assert_close(turned, value, rtol=1e-6, atol=1e-9)
    assert_close(turned_gradient.flip(0), gradient, rtol=1e-6, atol=1e-9)


@every_loss
@given(bag=some_bags)
def test_attention_loss_law_empty_bag_counts_for_nothing(loss, bag):
    z, mask = bag
    more = torch.cat([z, z[:1]]), torch.cat([mask, torch.zeros_like(mask[:1])])
    attention = torch.cat([attend(z, mask), torch.full_like(z[:1], torch.nan)]).requires_grad_()
    value = loss(attention, more[1])
    value.backward()
    assert_close(value.detach(), value_and_gradient(loss, z, mask)[0], rtol=1e-6, atol=1e-9)
    assert not attention.grad[-1].any()
    nothing = loss(attention[-1:], more[1][-1:])
    assert nothing.item() == 0
    assert nothing.requires_grad


@every_loss
@pytest.mark.parametrize("shape", [(0, 5, 2), (0, 0, 2), (2, 0, 2)])
def test_attention_loss_law_no_bags_and_no_instances_are_zero(loss, shape):
    for mask in (None, torch.ones(shape[:2]).bool()):
        attention = torch.zeros(shape, requires_grad=True)
        value = loss(attention, mask)
        value.backward()
        assert value.item() == 0
        assert attention.grad.shape == shape


@every_loss
def test_attention_loss_law_runs_on_the_meta_device(loss):
    attention, mask = torch.ones(2, 5, 3, device="meta"), torch.ones(2, 5, device="meta").bool()
    assert loss(attention).shape == loss(attention, mask).shape == ()


@every_loss
@pytest.mark.parametrize("background", [-2.0, -10.0])
def test_attention_loss_law_of_a_million_instances_is_that_of_float64(loss, background):
    """Most instances are alike, as empty tiles are: sums one by one would all round to the same side."""
    z = torch.full((1, 1_000_000, 2), background)
    z[0, ::1000] = torch.randn(1000, 2)
    attention = masked_softmax(z, None)
    wide = masked_softmax(z.double(), None)
    assert_close(loss(attention).double(), loss(wide), rtol=1e-4, atol=1e-5)


@every_loss
def test_attention_loss_law_one_instance(loss):
    value, gradient = value_and_gradient(loss, torch.randn(3, 1, 2))
    assert value == ON_ONE_INSTANCE.get(type(loss), 0)
    assert not gradient.any()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("sharpness", [0.0, 1.0, 100.0])
def test_attention_loss_law_half_precision_is_finite_and_computed_in_float32(loss, dtype, sharpness):
    attention = (torch.randn(2, 3000, 2) * sharpness).softmax(1).to(dtype).requires_grad_()
    value = loss(attention)
    value.backward()
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(loss(attention), value, rtol=0, atol=0)
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    assert torch.isfinite(attention.grad).all()


@every_loss
def test_attention_loss_law_gradients_are_exact(loss):
    """Compare with finite differences of the value, with a detached target held fixed."""
    z = torch.randn(2, 5, 2, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    if isinstance(loss, GuidanceLoss):
        fixed = loss.target(attend(z.detach(), mask), mask.unsqueeze(-1), None)
        loss = copy.copy(loss)
        loss.target = lambda *_: fixed
    assert torch.autograd.gradcheck(lambda z: loss(attend(z, mask), mask), z)


@every_loss
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            (torch.ones(2, 5),),
            r"`attention` must be floating point of shape \(B, N, H\) .*, got torch.float32 \(2, 5\)",
        ),
        ((torch.ones(2, 5, 0),), r"`attention` must be floating point .* with H >= 1, got torch.float32 \(2, 5, 0\)"),
        ((torch.ones(2, 5, 1).int(),), r"`attention` must be floating point .*, got torch.int32"),
        ((torch.ones(2, 5, 1), torch.ones(2, 5)), r"`mask` must be of dtype torch.bool"),
        ((torch.ones(2, 5, 1), torch.ones(2, 4).bool()), r"`mask` must have shape \(B, N\) = \(2, 5\), got \(2, 4\)"),
    ],
)
def test_attention_loss_law_bad_input_is_named(loss, inputs, message):
    with pytest.raises(ValueError, match=message):
        loss(*inputs)
