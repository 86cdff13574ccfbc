"""Tests of KernelGuidanceLoss: an independent reference, and the laws that Normal Guidance does not have."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import rel_entr
from torch.testing import assert_close

from monai_mil_ext.losses import KernelGuidanceLoss, NormalGuidanceLoss

SLICES = torch.arange(48, dtype=torch.float64)


def one_bag(attention):
    return (attention / attention.sum()).view(1, -1, 1)


def bell(mean, sd):
    return one_bag(torch.exp(-((SLICES - mean) ** 2) / (2 * sd**2)))


def one_slice(index):
    return one_bag((index == SLICES).double())


def target(loss, attention, positions=None):
    mask = torch.ones_like(attention[..., :1], dtype=torch.bool)
    return loss.target(attention, mask, None if positions is None else positions.unsqueeze(-1))


def matrix(sd, size, positions=None):
    """Return the matrix K of a bag, from one-hot attention."""
    places = None if positions is None else positions.expand(size, -1)
    return target(KernelGuidanceLoss(sd), torch.eye(size, dtype=torch.float64).unsqueeze(-1), places)[..., 0]


def reference(positions, sd, rounds):
    """Compute K with NumPy: symmetric scaling of the dense kernel, what is left on the diagonal."""
    distance = np.abs(np.subtract.outer(positions, positions)) / sd
    kernel = np.where(distance <= 4, np.exp(-(distance**2) / 2), 0)
    d = np.ones(len(positions))
    for _ in range(rounds):
        d = np.sqrt(d / (kernel @ d))
    scaled = np.outer(d, d) * kernel
    scaled /= scaled.sum(0).max()
    return scaled + np.diag(1 - scaled.sum(0))


@pytest.mark.parametrize("size", [1, 2, 7, 48])
@pytest.mark.parametrize("sd", [0.3, 2.0, 5.0, 100.0])
def test_kernel_guidance_is_that_of_an_independent_reference(size, sd):
    expected = reference(np.arange(size), sd, 12)
    assert_close(matrix(sd, size), torch.as_tensor(expected), rtol=0, atol=1e-12)
    assert_close(torch.as_tensor(reference(np.arange(size), sd, 1000)), matrix(sd, size), rtol=0, atol=2e-3)
    a = np.random.default_rng(size).dirichlet(np.ones(size), 2)
    r = a @ expected
    value = KernelGuidanceLoss(sd)(torch.as_tensor(a.T[None]))
    assert_close(value.item(), np.mean(np.sum(rel_entr(r, a), 1)), rtol=0, atol=1e-10)


def test_kernel_guidance_has_golden_values():
    a = torch.tensor([0.1, 0.2, 0.4, 0.05, 0.25], dtype=torch.float64).view(1, 5, 1)
    values = [KernelGuidanceLoss(1.0, divergence)(a).item() for divergence in ("forward_kl", "squared_error")]
    assert values == pytest.approx([0.1855299236656848, 0.0544967647291836], abs=1e-10)


@given(
    size=st.integers(1, 40),
    sd=st.floats(0.05, 50),
    gaps=st.lists(st.floats(0, 20), min_size=40, max_size=40),
    has_positions=st.booleans(),
)
def test_kernel_guidance_law_rows_and_columns_sum_to_one(size, sd, gaps, has_positions):
    positions = torch.tensor(gaps[:size], dtype=torch.float64).cumsum(0) if has_positions else None
    k = matrix(sd, size, positions)
    assert_close(k.sum(0), torch.ones_like(k[0]))
    assert_close(k, k.T)
    assert k.min() >= -1e-12
    uniform = torch.full((1, size, 1), 1 / size, dtype=torch.float64)
    places = None if positions is None else positions.expand(1, -1)
    assert abs(KernelGuidanceLoss(sd)(uniform, positions=places).item()) < 1e-12


@pytest.mark.parametrize("index", [0, 1, 13, 24, 47])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kernel_guidance_one_slice_is_no_minimum(index, dtype):
    """Attention rounded to a single slice is drawn apart: no lower bound stops the gradient of its neighbors."""
    z = (40 * one_slice(index).to(dtype)).requires_grad_()
    value = KernelGuidanceLoss()(z.softmax(1))
    value.backward()
    assert value.item() > 5
    assert z.grad[0, index, 0] > 0.5  # descent lowers the score of the slice
    assert z.grad[0, abs(index - 1), 0] < -0.1
    assert abs(NormalGuidanceLoss()(one_slice(index)).item()) < 1e-9


def drift(loss, attention):
    """Return how far one step of descent on the scores moves the mean position: r - a is minus the gradient."""
    return ((target(loss, attention) - attention).flatten() * SLICES).sum().item()


@given(mean=st.floats(14, 33), sd=st.floats(0.1, 1.5))
def test_kernel_guidance_has_no_drift(mean, sd):
    assert abs(drift(KernelGuidanceLoss(), bell(mean, sd))) < 1e-3


def test_kernel_guidance_does_not_draw_spread_out_attention_to_the_middle():
    """A plateau that is off the middle spreads to both sides alike; the bell of Normal Guidance is drawn inward."""
    plateau = one_bag(((SLICES > 9) & (SLICES < 21)).double())
    assert abs(drift(KernelGuidanceLoss(), plateau)) < 0.005
    uniform = one_bag(torch.ones_like(SLICES))
    width = [((target(loss, uniform).flatten() * (SLICES - 23.5) ** 2).sum() ** 0.5).item() for loss in BOTH]
    assert width[0] == pytest.approx(13.853, abs=1e-3)  # that of uniform attention
    assert width[1] == pytest.approx(11.29, abs=0.01)


BOTH = (KernelGuidanceLoss(), NormalGuidanceLoss())


@given(shift=st.integers(-8, 8), other=st.integers(0, 2**31))
def test_kernel_guidance_law_moves_with_the_attention(shift, other):
    heights = torch.rand(8, dtype=torch.float64, generator=torch.Generator().manual_seed(other))
    attention = torch.zeros_like(SLICES)
    attention[20:28] = heights
    attention = one_bag(attention)
    loss = KernelGuidanceLoss()
    moved = target(loss, attention.roll(shift, 1))
    assert_close(moved, target(loss, attention).roll(shift, 1), rtol=0, atol=1e-3)
    flipped = target(loss, attention.flip(1))
    assert_close(flipped, target(loss, attention).flip(1))


def test_kernel_guidance_keeps_several_bells():
    bells = [bell(mean, 2.0) for mean in (7, 23, 39)]
    several = sum(bells) / 3
    loss = KernelGuidanceLoss()
    assert_close(target(loss, several), sum(target(loss, b) for b in bells) / 3)
    assert loss(several).item() == pytest.approx(sum(loss(b).item() for b in bells) / 3, abs=0.05)
    r = target(loss, several).flatten()
    peaks = [i for i in range(1, 47) if r[i] > r[i - 1] and r[i] > r[i + 1]]
    assert peaks == [7, 23, 39]
    assert NormalGuidanceLoss()(several).item() > 10 * loss(several).item()


def test_kernel_guidance_in_mm_is_that_in_slices():
    attention = torch.rand(2, 20, 3, dtype=torch.float64).softmax(1)
    mm = 5.0 * torch.arange(20, dtype=torch.float64).expand(2, -1) - 300
    for positions in (mm, -mm):
        assert_close(KernelGuidanceLoss(10.0)(attention, positions=positions), KernelGuidanceLoss(2.0)(attention))
    uneven = torch.tensor([0.0, 5.0, 10.0, 15.0, 100.0], dtype=torch.float64)
    k = matrix(5.0, 5, uneven)
    assert_close(k[4], torch.eye(5, dtype=torch.float64)[4])  # no slice is near enough
    assert_close(k[:4, :4], torch.as_tensor(reference(np.arange(4), 1.0, 12)), rtol=0, atol=1e-3)
    expected = torch.as_tensor(reference(uneven.numpy(), 5.0, 12))
    assert_close(k, expected, rtol=0, atol=1e-12)


def test_kernel_guidance_takes_positions_in_any_order():
    attention, positions = torch.rand(1, 12, 1).softmax(1), torch.rand(1, 12) * 30
    order = torch.randperm(12)
    loss = KernelGuidanceLoss(5.0)
    assert_close(loss(attention[:, order], positions=positions[:, order]), loss(attention, positions=positions))


def test_kernel_guidance_ignores_what_is_padded_between_instances():
    """Without positions, instances on both sides of padding keep their distance."""
    mask = torch.tensor([[True, True, False, True, True]])
    attention = torch.tensor([0.4, 0.1, torch.nan, 0.2, 0.3], dtype=torch.float64).view(1, 5, 1)
    places = torch.tensor([[0.0, 1.0, 3.0, 4.0]], dtype=torch.float64)
    loss = KernelGuidanceLoss(1.0)
    assert_close(loss(attention, mask), loss(attention[mask].unsqueeze(0), positions=places))


def test_kernel_guidance_of_rows_below_one():
    whole = torch.rand(2, 10, 3, dtype=torch.float64).softmax(1)
    row = whole * torch.tensor([0.9, 0.8, 0.7], dtype=torch.float64)
    assert_close(KernelGuidanceLoss(renormalize=True)(row), KernelGuidanceLoss()(whole))
    missing = -torch.tensor([0.9, 0.8, 0.7], dtype=torch.float64).log().mean()
    assert_close(KernelGuidanceLoss()(row), KernelGuidanceLoss()(whole) + missing)


def test_kernel_guidance_is_mapped():
    attention, positions = torch.rand(3, 2, 5, 1).softmax(2), torch.arange(5.0).expand(3, 2, 5)
    loss = KernelGuidanceLoss(2.0)
    each = torch.stack([loss(a, None, p) for a, p in zip(attention, positions, strict=True)])
    assert_close(torch.func.vmap(lambda a, p: loss(a, None, p))(attention, positions), each)
    assert_close(torch.func.vmap(loss)(attention), each)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sd": 0.0}, r"`sd` must be positive and finite, got 0.0"),
        ({"sd": float("inf")}, r"`sd` must be positive and finite, got inf"),
        ({"divergence": "kl"}, r"`divergence` must be one of .*, got 'kl'"),
        ({"eps": -1.0}, r"`eps` must be positive and finite, got -1.0"),
    ],
)
def test_kernel_guidance_rejects_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        KernelGuidanceLoss(**options)


def test_kernel_guidance_rejects_bad_positions():
    positions = torch.tensor([[0.0, 1.0, float("nan")]])
    with pytest.raises(ValueError, match=r"`positions` must be finite .*, got nan at instance 2 of bag 0"):
        KernelGuidanceLoss()(torch.ones(1, 3, 1), positions=positions)


def test_without_sd_the_kernel_counts_instances_and_refuses_positions():
    """Two millimeters would be less than the distance of two slices, and smooth nothing."""
    attention = torch.rand(1, 12, 1).softmax(1)
    assert_close(KernelGuidanceLoss()(attention), KernelGuidanceLoss(2.0)(attention), rtol=0, atol=0)
    with pytest.raises(ValueError, match="`sd` must be given in the unit of `positions`, such as 10 for mm, got None"):
        KernelGuidanceLoss()(attention, positions=5 * torch.arange(12.0).view(1, 12))
