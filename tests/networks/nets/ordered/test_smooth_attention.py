"""Tests of ChainSmoother, SmAP and SmTP; the laws of all networks are in tests/contracts."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from monai_mil_ext.networks.layers import ChainSmoother, SpectralLinear
from monai_mil_ext.networks.layers.compact import compact, compact_order, uncompact
from monai_mil_ext.networks.layers.spectral import spectral_norm_of
from monai_mil_ext.networks.nets import ABMIL, SmAP, SmTP
from tests.golden import reference_smooth as reference
from tests.golden import reference_transmil
from tests.helpers import bags, fill

IMPULSE = torch.tensor([0.0, 0, 1, 0, 0], dtype=torch.float64).view(1, 5, 1)
SIZES = [6, 1, 2, 4]
X = np.cos(np.arange(4 * 6 * 5) * 0.37).reshape(4, 6, 5)
MASK = torch.arange(6) < torch.tensor(SIZES)[:, None]
RAW = 0.8  # not 0, since alpha = 1/2 would hide swapped weights
ALPHA = 1 / (1 + np.exp(-RAW))
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


@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=4))
def test_compact_moves_valid_instances_to_the_front_in_order(rows):
    mask = torch.tensor(rows)
    x, order = torch.arange(mask.numel()).view(*mask.shape, 1), compact_order(mask)
    packed = compact(x, order)
    for bag, front, real in zip(x, packed, mask, strict=True):
        assert_close(front[: real.sum()], bag[real])
    assert torch.equal(uncompact(packed, order), x)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (1, 7), (128, 768)])
def test_spectral_norm_of_is_the_largest_singular_value(shape):
    weight = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    norm, expected = spectral_norm_of(weight), torch.linalg.matrix_norm(weight, 2)
    assert_close(norm, expected, rtol=1e-6, atol=0)
    gradients = [torch.autograd.grad(value, weight)[0] for value in (norm, expected)]
    assert_close(*gradients, rtol=1e-3, atol=1e-3)
    assert torch.isfinite(SpectralLinear(3, 2)(torch.rand(4, 3))).all()


@pytest.mark.parametrize("place", ["early", "mid", "late"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-9)], ids=str)
def test_smap_matches_reference(place, dtype, tolerance):
    net = SmAP(5, 2, attention_size=3, place=place).to(dtype)
    smoother = (
        net.smooth_instances if place == "early" else getattr(net, f"smooth_{'hidden' if place == 'mid' else 'scores'}")
    )
    params = reference.weights([(1,), *reference.smap_shapes(5, 2, 3)])[1:]
    torch.nn.init.constant_(fill(net) and smoother.raw, RAW)
    out = net.forward_bag(torch.tensor(X, dtype=dtype), MASK)
    for i, n in enumerate(SIZES):
        got = out.logits[i], out.embedding[i], out.scores[i, :n], out.attention[i, :n]
        for ours, theirs in zip(got, reference.smap(X[i, :n], params, ALPHA, place), strict=True):
            assert_close(ours, torch.tensor(theirs, dtype=dtype), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-9)], ids=str)
def test_smtp_matches_reference(dtype, tolerance):
    net = fill(SmTP(5, 2, num_heads=1).to(dtype))
    for smoother, raw in ((net.smooth1, RAW), (net.smooth2, -0.5)):
        torch.nn.init.constant_(smoother.raw, raw)
    params = reference_transmil.weights(reference_transmil.sequence_shapes(5, 2))
    smooth = [partial(reference.smooth, alpha=1 / (1 + np.exp(-raw))) for raw in (RAW, -0.5)]
    out = net.forward_bag(torch.tensor(X, dtype=dtype), MASK)
    for i, n in enumerate(SIZES):
        got = out.logits[i], out.embedding[i], out.scores[i, :n], out.attention[i, :n]
        for ours, theirs in zip(got, reference_transmil.sequence(X[i, :n], params, 1, smooth), strict=True):
            assert_close(ours, torch.tensor(theirs, dtype=dtype), rtol=tolerance, atol=tolerance)


def test_smap_has_the_published_number_of_parameters():
    assert sum(p.numel() for p in SmAP(768, 1).parameters()) == 99_331


def test_smap_late_without_smoothing_is_abmil():
    net, plain = SmAP(5, 2, place="late"), ABMIL(5, 2, gated=False)
    torch.nn.init.constant_(net.smooth_scores.raw, -50.0)
    plain.attend.load_state_dict(net.state_dict(), strict=False)
    plain.classify.load_state_dict(net.classify.state_dict())
    assert_close(net(torch.tensor(X).float(), MASK), plain(torch.tensor(X).float(), MASK))


def test_smap_takes_another_smoother():
    net = SmAP(5, 2, smoother=ChainSmoother(num_steps=1))
    assert net.smooth_instances(IMPULSE).flatten()[0].item() == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ChainSmoother(num_steps=0), "`num_steps` must be a positive integer, got 0"),
        (lambda: ChainSmoother(num_neighbors=0), "`num_neighbors` must be a positive integer, got 0"),
        (lambda: SmAP(5, 2, place="later"), "`place` must be one of 'early', 'mid', 'late', got 'later'"),
    ],
)
def test_chain_smoother_and_smap_reject_bad_options(call, message):
    with pytest.raises(ValueError, match=message):
        call()
