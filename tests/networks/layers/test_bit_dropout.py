"""Tests of dropout from random bits."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from monai_mil_ext.networks.layers.bit_dropout import LEVELS, BitDropout

COUNT = 2_000_000


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.9, 1e-4])
def test_values_are_dropped_at_the_rate_and_their_mean_stays(rate):
    torch.manual_seed(0)
    exact = round(rate * LEVELS) / LEVELS
    assert abs(exact - rate) <= 2**-17
    y = BitDropout(rate)(torch.ones(COUNT))
    assert_close(y.unique(), torch.tensor([0.0, 1 / (1 - exact)]))
    assert abs((y == 0).sum().item() - COUNT * exact) < 5 * math.sqrt(COUNT * exact * (1 - exact))
    assert (1 - exact) * y.max().item() == pytest.approx(1, rel=1e-6)  # the expectation


def test_values_are_dropped_independently():
    """No value of a word of 64 bits, nor of its neighbors, tells another one: all 16 bits of each are random."""
    torch.manual_seed(0)
    kept = (BitDropout(0.5)(torch.ones(COUNT)) > 0).double() - 0.5
    for lag in range(1, 9):
        assert abs((kept[lag:] * kept[:-lag]).sum().item()) < 5 * math.sqrt(COUNT) / 4
    for place in range(4):
        assert abs(kept[place::4].sum().item()) < 5 * math.sqrt(COUNT / 4) / 2


@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 3, 7)])
def test_any_shape_and_dtype_keeps_its_own(shape):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        y = BitDropout(0.5)(torch.ones(shape, dtype=dtype))
        assert (y.shape, y.dtype) == (shape, dtype)
        assert set(y.flatten().tolist()) <= {0.0, 2.0}


def test_gradient_is_that_of_the_kept_values():
    x = torch.rand(3, 50, dtype=torch.float64, requires_grad=True)
    y = BitDropout(0.25)(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert_close(gradient * x, y)
    strided = torch.rand(50, 3).T
    torch.manual_seed(1)
    expected = BitDropout(0.25)(strided.contiguous())
    torch.manual_seed(1)
    assert torch.equal(BitDropout(0.25)(strided), expected)


def test_seeds_repeat_it():
    torch.manual_seed(3)
    first, second = BitDropout()(torch.ones(100)), BitDropout()(torch.ones(100))
    torch.manual_seed(3)
    assert torch.equal(BitDropout()(torch.ones(100)), first)
    assert not torch.equal(first, second)


def test_rates_that_16_bits_do_not_have_are_those_of_torch():
    x = torch.ones(1000)
    assert BitDropout(0.0)(x).tolist() == x.tolist()
    assert not BitDropout(1.0)(x).any()
    assert BitDropout(0.9).eval()(x) is x
    for rate in (1e-6, 1 - 1e-6):
        torch.manual_seed(0)
        y = BitDropout(rate)(x)
        torch.manual_seed(0)
        assert torch.equal(y, nn.Dropout(rate)(x))


def test_other_programs_have_the_dropout_of_torch():
    drop = BitDropout(0.5)
    for program in (torch.jit.script(drop), torch.compile(drop, backend="eager", fullgraph=True)):
        torch.manual_seed(0)
        y = program(torch.ones(100))
        torch.manual_seed(0)
        assert torch.equal(y, nn.Dropout(0.5)(torch.ones(100)))
    y = torch.func.vmap(drop, randomness="different")(torch.ones(2, 100))
    assert not torch.equal(y[0], y[1])
