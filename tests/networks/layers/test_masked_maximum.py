"""Tests of the masked maximum and its fractions."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from monai_mil_ext.networks.layers import masked_max
from tests.helpers import bags

JUNK = st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e30])


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
