"""Tests of spectral_norm_of and SpectralLinear."""

import pytest
import torch
from torch.testing import assert_close

from monai_mil_ext.networks.layers import SpectralLinear
from monai_mil_ext.networks.layers.spectral import spectral_norm_of


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (1, 7), (128, 768)])
def test_spectral_norm_of_is_the_largest_singular_value(shape):
    weight = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    norm, expected = spectral_norm_of(weight), torch.linalg.matrix_norm(weight, 2)
    assert_close(norm, expected, rtol=1e-6, atol=0)
    gradients = [torch.autograd.grad(value, weight)[0] for value in (norm, expected)]
    assert_close(*gradients, rtol=1e-3, atol=1e-3)


def test_spectral_linear_divides_its_weight_by_the_norm():
    layer, x = SpectralLinear(3, 2), torch.rand(4, 3)
    weight = layer.weight / torch.linalg.matrix_norm(layer.weight, 2)
    assert_close(layer(x), x @ weight.T + layer.bias)


def test_spectral_linear_with_zero_weight_is_finite():
    layer = SpectralLinear(3, 2)
    torch.nn.init.zeros_(layer.weight)
    assert torch.equal(layer(torch.ones(1, 3))[0], layer.bias)
