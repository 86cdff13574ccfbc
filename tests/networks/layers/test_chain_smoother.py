"""Tests of ChainSmoother."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from monai_mil_ext.networks.layers import ChainSmoother
from tests.golden import reference_smooth as reference
from tests.helpers import bags

IMPULSE = torch.tensor([0.0, 0, 1, 0, 0], dtype=torch.float64).view(1, 5, 1)
ROW = [0.08349609375, 0.16650390625, 0.58349609375, 0.16650390625, 0.08349609375]


@pytest.mark.parametrize(
    ("smoother", "expected"),
    [
        (ChainSmoother(), ROW),
        (ChainSmoother(symmetric=True), [0.0590406541, *ROW[1:4], 0.0590406541]),
    ],
    ids=["rows", "symmetric"],
)
def test_chain_smoother_has_published_values(smoother, expected):
    assert_close(smoother(IMPULSE).flatten(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-10)


def test_chain_smoother_by_rows_keeps_constants():
    ones = torch.ones(1, 5, 1, dtype=torch.float64)
    assert_close(ChainSmoother()(ones), ones, rtol=0, atol=1e-12)
    ends = ChainSmoother(symmetric=True)(ones)[0, [0, -1], 0].tolist()
    assert ends == pytest.approx([0.8780088303] * 2, abs=1e-10)


CASES = {
    "rows": (ChainSmoother(), {}),
    "symmetric": (ChainSmoother(symmetric=True), {"symmetric": True}),
    "far": (ChainSmoother(num_steps=3, num_neighbors=2), {"steps": 3, "neighbors": 2}),
    "far-symmetric": (ChainSmoother(4, 3, symmetric=True), {"steps": 4, "neighbors": 3, "symmetric": True}),
}


@pytest.mark.parametrize(("smoother", "options"), CASES.values(), ids=CASES)
@given(batch=bags(3, max_instances=12, dtype=torch.float64), raw=st.floats(-4, 4), seed=st.integers(0, 99))
def test_chain_smoother_matches_reference_for_any_padding(smoother, options, batch, raw, seed):
    x, mask = batch
    torch.nn.init.constant_(smoother.double().raw, raw)
    order = torch.rand(mask.shape, generator=torch.Generator().manual_seed(seed)).argsort(1)
    mask = mask.gather(1, order)
    out = smoother(x.where(mask[..., None], torch.nan), mask)
    for bag, real, got in zip(x, mask, out, strict=True):
        expected = reference.smooth(bag[real].numpy(), 1 / (1 + np.exp(-raw)), **options)
        assert_close(got[real], torch.tensor(expected), rtol=1e-9, atol=1e-9)
    assert not out[~mask].any()


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("n", [2, 5, 33])
def test_chain_smoother_with_many_steps_is_the_exact_solution(symmetric, n):
    u = torch.randn(n, 3, dtype=torch.float64)
    smooth = ChainSmoother(num_steps=200, symmetric=symmetric)(u.unsqueeze(0))[0]
    assert_close(smooth, torch.tensor(reference.smooth_exactly(u.numpy(), 0.5, symmetric)), rtol=0, atol=1e-6)


def test_chain_smoother_learns_alpha_and_keeps_a_single_instance():
    smoother = ChainSmoother()
    assert torch.sigmoid(smoother.raw) == 0.5
    (gradient,) = torch.autograd.grad(smoother(IMPULSE).square().sum(), [smoother.raw])
    assert gradient < 0
    u = torch.randn(2, 1, 3)
    assert torch.equal(smoother(u), u)
    assert smoother(u[:, :0]).shape == (2, 0, 3)
    assert smoother(u.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["num_steps", "num_neighbors"])
def test_chain_smoother_rejects_counts_that_are_not_positive(name):
    with pytest.raises(ValueError, match=f"`{name}` must be a positive integer, got 0"):
        ChainSmoother(**{name: 0})
