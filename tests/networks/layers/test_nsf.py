"""Tests of log_sigmoid_scores by its softmax, the normalized sigmoid, and of masked_log_softmax."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from monai_mil_ext.networks.layers import masked_log_softmax, masked_softmax
from tests.helpers import bags
from tests.networks.normalized_sigmoid import normalized_sigmoid

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "asmil.json").read_text())


@given(
    bag=bags(2), offset=st.sampled_from([-200.0, -30.0, 0.0, 200.0]), junk=st.sampled_from([0.0, torch.nan, torch.inf])
)
@pytest.mark.parametrize("center", ["none", "mean"])
def test_log_sigmoid_scores_give_a_distribution_over_valid_instances(center, bag, offset, junk):
    scores, mask = bag
    a = normalized_sigmoid((scores + offset).masked_fill(~mask[..., None], junk), mask, center=center)
    assert_close(a.sum(1), torch.ones_like(a[:, 0]), rtol=0, atol=1e-6)
    assert (a >= 0).all()
    assert not a[~mask].any()


def test_log_sigmoid_scores_match_formula():
    scores = torch.randn(2, 6, 3, dtype=torch.float64)
    for temperature in (0.3, 1.0, 4.0):
        sigmoid = (scores / temperature).sigmoid()
        assert_close(normalized_sigmoid(scores, temperature=temperature), sigmoid / sigmoid.sum(1, keepdim=True))
    centered = normalized_sigmoid(scores - scores.mean(1, keepdim=True), temperature=0.3)
    assert_close(normalized_sigmoid(scores, temperature=0.3, center="mean"), centered)


def test_log_sigmoid_scores_center_by_the_mean_of_valid_instances():
    scores, mask = torch.randn(1, 6, 1), torch.arange(6)[None] < 4
    alone = normalized_sigmoid(scores[:, :4], center="mean")
    assert_close(normalized_sigmoid(scores, mask, center="mean")[:, :4], alone)


@given(
    tau=st.floats(0.1, 8.0),
    spread=st.floats(0.0, 30.0),
    sizes=st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(0, 6)),
    seed=st.integers(0, 2**16),
)
def test_log_sigmoid_scores_flatten_high_and_suppress_low_scores(tau, spread, sizes, seed):
    """Check Theorem 1: two high weights differ by at most 1 + exp(-tau), a low weight is at most exp(-tau) / h."""
    draw = torch.Generator().manual_seed(seed)
    high, low, free = (torch.rand(n, generator=draw, dtype=torch.float64) * spread for n in sizes)
    scores = torch.cat([high + tau, -low - tau, free * 2 - spread])
    a = normalized_sigmoid(scores.view(1, -1, 1)).flatten()
    high, low = a[: sizes[0]], a[sizes[0] : sizes[0] + sizes[1]]
    bound = torch.tensor(tau, dtype=torch.float64).neg().exp()
    assert (high.max() / high.min()) <= (1 + bound) * (1 + 1e-12)
    assert low.max() <= bound / sizes[0] * (1 + 1e-12)


def test_log_sigmoid_scores_reach_the_bounds_of_the_theorem():
    tau = torch.tensor(2.0, dtype=torch.float64)
    a = normalized_sigmoid(torch.stack([tau, tau + 50]).view(1, -1, 1)).flatten()
    assert_close(a[1] / a[0], 1 + (-tau).exp())
    a = normalized_sigmoid(torch.stack([tau, -tau]).view(1, -1, 1)).flatten()
    assert a[1] > 0.75 * (-tau).exp()


@pytest.mark.parametrize("offset", [-10, 0, 10])
def test_log_sigmoid_scores_shift_changes_softmax_to_uniform(offset):
    scores = torch.tensor([3.0, 2, 1, 0, -1, -2]).view(1, -1, 1)
    a = normalized_sigmoid(scores + offset).flatten()
    assert_close(a, torch.tensor(GOLDEN["offsets"][str(offset)]), rtol=0, atol=1e-6)
    expected = {-10: scores.softmax(1).flatten(), 10: torch.full((6,), 1 / 6)}.get(offset, a)
    assert_close(a, expected, rtol=0, atol=1e-3)
    if offset == 0:
        assert_close(a[[0, -1]], torch.tensor([0.276, 0.035]), rtol=0, atol=1e-3)
    centered = normalized_sigmoid(scores + offset, center="mean")
    assert_close(centered, normalized_sigmoid(scores, center="mean"), rtol=1e-5, atol=1e-6)


def test_log_sigmoid_scores_compute_half_precision_in_float32():
    scores = torch.randn(1, 5000, 1).bfloat16()
    a = normalized_sigmoid(scores)
    assert a.dtype == torch.float32
    assert_close(a, normalized_sigmoid(scores.float()), rtol=0, atol=0)


@given(bag=bags(2, dtype=torch.float64))
def test_log_sigmoid_scores_have_no_gradient_at_padding(bag):
    scores, mask = bag
    scores = scores.masked_fill(~mask[..., None], torch.nan).requires_grad_()
    normalized_sigmoid(scores, mask, center="mean").square().sum().backward()
    assert scores.grad.isfinite().all()
    assert not scores.grad[~mask].any()


@given(bag=bags(2, dtype=torch.float64))
def test_masked_log_softmax_does_not_underflow(bag):
    scores, mask = bag
    log = masked_log_softmax(scores.masked_fill(~mask[..., None], torch.nan), mask)
    assert_close(log.exp() * mask[..., None], masked_softmax(scores, mask))
    assert not log[~mask].any()
    far = masked_log_softmax(torch.tensor([[[0.0], [-500.0]]]), None).flatten()
    assert far.tolist() == [0.0, -500.0]
    empty = torch.zeros(1, 2, 1, requires_grad=True)
    masked_log_softmax(empty, torch.zeros(1, 2).bool()).sum().backward()
    assert not empty.grad.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "`temperature` must be positive and finite, got 0.0"),
        ({"temperature": float("nan")}, "`temperature` must be positive and finite, got nan"),
        ({"center": "median"}, "`center` must be one of 'none', 'mean', got 'median'"),
    ],
)
def test_log_sigmoid_scores_reject_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        normalized_sigmoid(torch.zeros(1, 2, 1), **options)
