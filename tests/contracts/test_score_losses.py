"""Laws of losses on scores and the scores of an anchor. A new loss adds one line to ``CASES``."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from monai_mil_ext.losses import NSFKLLoss
from tests.helpers import bags

CASES = {
    "nsf_kl": NSFKLLoss(),
    "nsf_kl_cold": NSFKLLoss(temperature=0.5),
    "nsf_kl_centered": NSFKLLoss(center="mean"),
    "nsf_kl_released": NSFKLLoss(over_instances="mean"),
}
JUNK = [7.0, float("nan"), float("inf"), float("-inf")]
every_loss = pytest.mark.parametrize("loss", CASES.values(), ids=CASES)
some_bags = bags(in_features=4, dtype=torch.float64)  # two columns of scores and two of anchor scores


def value_and_gradients(loss, bag, mask=None, junk=None):
    if mask is not None and junk is not None:
        bag = bag.masked_fill(~mask.unsqueeze(-1), junk)
    z, anchor = (part.clone().requires_grad_() for part in bag.split(2, dim=-1))
    value = loss(z, anchor, mask)
    value.backward()
    assert anchor.grad is None
    return value.detach(), z.grad


@every_loss
@given(bag=some_bags, junk=st.sampled_from(JUNK))
def test_nsf_kl_law_values_at_padding_change_nothing(loss, bag, junk):
    clean, dirty = value_and_gradients(loss, *bag), value_and_gradients(loss, *bag, junk)
    assert_close(dirty, clean, rtol=0, atol=0)
    assert dirty[0].isfinite()
    assert not dirty[1][~bag[1]].any()


@every_loss
@given(bag=some_bags)
def test_nsf_kl_law_batch_is_the_mean_of_independent_bags(loss, bag):
    x, mask = bag
    alone = [value_and_gradients(loss, xi[mi].unsqueeze(0)) for xi, mi in zip(x, mask, strict=True)]
    value, gradient = value_and_gradients(loss, x, mask, junk=float("nan"))
    assert_close(value, torch.stack([v for v, _ in alone]).mean(), rtol=1e-9, atol=1e-11)
    for i, (_, g) in enumerate(alone):
        assert_close(gradient[i][mask[i]], g.squeeze(0) / len(x), rtol=1e-9, atol=1e-11)


@every_loss
@given(bag=some_bags)
def test_nsf_kl_law_order_changes_nothing(loss, bag):
    x, mask = bag
    order = torch.randperm(x.shape[1])
    value, gradient = value_and_gradients(loss, x, mask)
    turned, turned_gradient = value_and_gradients(loss, x[:, order], mask[:, order])
    assert_close((turned, turned_gradient), (value, gradient[:, order]), rtol=1e-9, atol=1e-11)


@every_loss
@given(bag=some_bags)
def test_nsf_kl_law_is_never_negative(loss, bag):
    assert value_and_gradients(loss, *bag)[0] >= -1e-12


@every_loss
@given(bag=some_bags)
def test_nsf_kl_law_empty_bag_counts_for_nothing(loss, bag):
    x, mask = bag
    more = torch.cat([x, torch.full_like(x[:1], torch.nan)]), torch.cat([mask, torch.zeros_like(mask[:1])])
    value, gradient = value_and_gradients(loss, *more)
    assert_close(value, value_and_gradients(loss, x, mask)[0], rtol=1e-9, atol=1e-11)
    assert not gradient[-1].any()
    nothing, gradient = value_and_gradients(loss, more[0][-1:], more[1][-1:])
    assert nothing == 0
    assert not gradient.any()
    assert value_and_gradients(loss, x[:, :0])[0] == 0


@every_loss
@pytest.mark.parametrize("shape", [(0, 5, 4), (0, 0, 4), (2, 0, 4)])
def test_nsf_kl_law_no_bags_and_no_instances_are_zero(loss, shape):
    value, gradient = value_and_gradients(loss, torch.zeros(shape), torch.ones(shape[:2]).bool())
    assert value == 0
    assert gradient.shape == (*shape[:2], 2)


@every_loss
def test_nsf_kl_law_runs_on_the_meta_device(loss):
    scores, mask = torch.ones(2, 5, 3, device="meta"), torch.ones(2, 5, device="meta").bool()
    assert loss(scores, scores).shape == loss(scores, scores, mask).shape == ()


@every_loss
@pytest.mark.parametrize("background", [-2.0, -10.0])
def test_nsf_kl_law_of_a_million_instances_is_that_of_float64(loss, background):
    z = torch.full((1, 1_000_000, 2), background)
    z[0, ::1000] = torch.randn(1000, 2)
    anchor = z.roll(100, 1)
    assert_close(loss(z, anchor).double(), loss(z.double(), anchor.double()), rtol=1e-4, atol=1e-5)


@every_loss
def test_nsf_kl_law_one_instance(loss):
    value, gradient = value_and_gradients(loss, torch.randn(3, 1, 4))
    assert value == 0
    assert not gradient.any()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.0, 1.0, 300.0])
def test_nsf_kl_law_half_precision_is_finite_and_computed_in_float32(loss, dtype, scale):
    bag = (torch.randn(2, 3000, 4) * scale).to(dtype)
    value, gradient = value_and_gradients(loss, bag)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(value_and_gradients(loss, bag)[0], value, rtol=0, atol=0)
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert gradient.isfinite().all()


@every_loss
def test_nsf_kl_law_gradients_are_exact(loss):
    """Compare with finite differences of the value, since the target depends on the anchor alone."""
    z, anchor = torch.randn(2, 2, 5, 2, dtype=torch.float64)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    assert torch.autograd.gradcheck(lambda z: loss(z, anchor, mask), z.requires_grad_())


@every_loss
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            [torch.ones(2, 5)] * 2,
            r"`scores` must be floating point of shape \(B, N, H\) .*, got torch.float32 \(2, 5\)",
        ),
        ([torch.ones(2, 5, 1).int()] * 2, r"`scores` must be floating point .*, got torch.int32"),
        (
            [torch.ones(2, 5, 1), torch.ones(2, 5, 2)],
            r"`anchor_scores` must have the shape of `scores`, .* \(2, 5, 2\)",
        ),
        ([*[torch.ones(2, 5, 1)] * 2, torch.ones(2, 5)], r"`mask` must be of dtype torch.bool"),
        ([*[torch.ones(2, 5, 1)] * 2, torch.ones(2, 4).bool()], r"`mask` must have shape \(B, N\) = \(2, 5\), got"),
    ],
)
def test_nsf_kl_law_bad_input_is_named(loss, inputs, message):
    with pytest.raises(ValueError, match=message):
        loss(*inputs)
