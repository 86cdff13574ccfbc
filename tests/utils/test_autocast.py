"""Tests of without_autocast on devices with and without autocast."""

import torch

from monai_mil_ext.utils import without_autocast


def test_without_autocast_computes_in_the_precision_of_the_inputs():
    x = torch.randn(3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        rough = x @ x
        with without_autocast(x):
            exact = x @ x
    assert (rough.dtype, exact.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(exact, x @ x)
    assert not torch.equal(rough.float(), exact)


def test_without_autocast_takes_a_device_that_has_none():
    x = torch.empty(3, 3, device="meta")
    with without_autocast(x):
        assert (x @ x).shape == (3, 3)
