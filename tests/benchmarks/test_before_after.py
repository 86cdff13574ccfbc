"""Tests that both sides of the ratios compute the same, on small bags."""

import pytest
import torch
from torch.testing import assert_close

from tests.benchmarks import before_after
from tests.benchmarks.before_after import anchored_asmil, composed_layers, gradient_cosine, padded_scans, short_qgmil


def test_optimizers_of_asmil_make_the_same_steps():
    weights = []
    torch.manual_seed(0)
    for run in anchored_asmil(5).values():
        torch.manual_seed(1)
        weights.append(run())
    assert_close(*weights, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("hidden_size", [16, None])
def test_padded_scans_have_the_same_gradients(hidden_size):
    ours, bare = padded_scans(hidden_size, bags=3).values()
    assert_close([weight.grad for weight in ours()], [weight.grad for weight in bare()], rtol=1e-4, atol=1e-7)


def test_gradients_in_bfloat16_have_nearly_the_same_direction():
    calls = short_qgmil(200)
    assert 0.999 < gradient_cosine(calls, "float32", "bfloat16") < 1 - 1e-7
    assert {weight.dtype for weight in calls["bfloat16"]()} == {torch.float32}


def test_composed_layers_are_those_of_torch():
    with composed_layers():
        assert not before_after.norms.is_eager_on_host(torch.ones(1))
        assert not before_after.bit_dropout.is_eager_on_host(torch.ones(1))
    assert before_after.norms.is_eager_on_host(torch.ones(1))
