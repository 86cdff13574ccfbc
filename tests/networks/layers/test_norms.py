"""Tests of norms that compute in float32."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from monai_mil_ext.networks.layers import LayerNormFp32, RMSNormFp32
from monai_mil_ext.networks.layers.norms import make_norm

NORMS = {"rms": (RMSNormFp32, nn.RMSNorm), "layer": (LayerNormFp32, nn.LayerNorm)}
every_norm = pytest.mark.parametrize("kind", NORMS)


def known(norm):
    for i, p in enumerate(norm.parameters()):
        p.data = torch.linspace(0.5, 2, p.numel()).to(p.dtype) * (i + 1)
    return norm


@every_norm
def test_norms_match_torch_in_float32_and_float64(kind):
    ours, theirs = NORMS[kind]
    for dtype in (torch.float32, torch.float64):
        x, a, b = torch.randn(3, 6, dtype=dtype), known(ours(6, 1e-3).to(dtype)), known(theirs(6, 1e-3).to(dtype))
        assert_close(a(x), b(x), rtol=0, atol=0)
        assert a.state_dict().keys() == b.state_dict().keys()


@every_norm
@pytest.mark.parametrize("half_weights", [False, True])
def test_norms_round_half_precision_once(kind, half_weights):
    norm, x = known(NORMS[kind][0](64)), torch.randn(100, 64).bfloat16() * 30
    norm = norm.bfloat16() if half_weights else norm
    exact = known(NORMS[kind][0](64)).double()
    exact.load_state_dict(norm.state_dict())
    assert norm(x).dtype == torch.bfloat16
    assert (norm(x) == exact(x.double()).bfloat16()).float().mean() > 0.999


def test_rms_norm_fp32_round_first_matches_published_code():
    x, weight = torch.randn(200, 64).bfloat16(), torch.linspace(0.5, 2, 64)
    norm = known(RMSNormFp32(64, round_first=True))
    scaled = (x.double() * (x.double().square().mean(-1, keepdim=True) + 1e-6).rsqrt()).bfloat16()
    assert norm(x).dtype == torch.float32
    assert (norm(x) == weight * scaled.float()).float().mean() > 0.999
    half = norm.bfloat16()(x)
    assert half.dtype == torch.bfloat16
    assert 0.1 < (half != known(RMSNormFp32(64)).bfloat16()(x)).float().mean() < 0.5


def test_make_norm_selects_by_kind():
    norm = make_norm("rms", 4, 1e-3, round_first=True)
    assert isinstance(norm, RMSNormFp32)
    assert (norm.epsilon, norm.round_first) == (1e-3, True)
    assert isinstance(make_norm("layer", 4), LayerNormFp32)
    assert make_norm("layer", 4, 1e-5).eps == 1e-5
    with pytest.raises(ValueError, match="`kind` must be one of 'rms', 'layer', got 'batch'"):
        make_norm("batch", 4)
    for kind in NORMS:
        with pytest.raises(ValueError, match="`size` must be a positive integer, got 0"):
            make_norm(kind, 0)


def gradients(norm, x, g):
    x = x.clone().requires_grad_()
    return torch.autograd.grad((norm(x) * g).sum(), [x, norm.weight])


@pytest.mark.parametrize("shape", [(6,), (0, 6), (50, 6), (2, 5, 3, 6)])
def test_gradient_of_rms_norm_is_that_of_torch(shape):
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-14)):
        x, g = torch.randn(2, *shape, dtype=dtype) * 3 + 1
        ours, theirs = known(RMSNormFp32(6, 1e-3).to(dtype)), known(nn.RMSNorm(6, 1e-3).to(dtype))
        assert_close(gradients(ours, x, g), gradients(theirs, x, g), rtol=tolerance, atol=20 * tolerance)


def test_gradient_of_rms_norm_needs_no_dense_arrays():
    x, g = torch.randn(4, 7, dtype=torch.float64)[:, :6].T, torch.ones(1, 1, dtype=torch.float64).expand(6, 4)
    norm = known(RMSNormFp32(4).double())
    assert_close(gradients(norm, x, g), gradients(norm, x.contiguous(), g.contiguous()), rtol=0, atol=0)
    norm.weight.requires_grad_(False)
    assert_close(torch.autograd.functional.vjp(norm, x, g)[1], gradients(known(norm.requires_grad_()), x, g)[0])


def test_rms_norm_has_all_derivatives():
    norm = known(RMSNormFp32(4).double())
    x, v = torch.randn(2, 3, 4, dtype=torch.float64)
    x.requires_grad_()
    weight = norm.weight.detach().clone().requires_grad_()

    def apply(x, weight):
        return torch.func.functional_call(norm, {"weight": weight}, (x,))

    assert torch.autograd.gradcheck(apply, (x, weight), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(apply, (x, weight))
    first = torch.autograd.grad((norm(x) * v).sum(), [x, norm.weight], create_graph=True)
    assert_close(first, gradients(norm, x.detach(), v))
    assert_close(torch.func.vmap(norm)(x), norm(x))
    backward = torch.func.grad(lambda x: (norm(x) * v).sum())(x.detach())
    assert_close(backward, gradients(norm, x.detach(), v)[0])


def test_gradient_of_rms_norm_ignores_autocast_of_the_backward_pass():
    norm, (x, g) = known(RMSNormFp32(64)), torch.randn(2, 9, 64)
    expected = gradients(norm, x, g)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(gradients(norm, x, g), expected, rtol=0, atol=0)
