"""Tests of PositionConv."""

import pytest
import torch
from torch.testing import assert_close

from monai_mil_ext.networks.blocks import PositionConv


def test_position_conv_is_the_sum_of_its_convolutions():
    block, y = PositionConv(4, [(3, 3), (5, 1)]).double(), torch.rand(2, 4, 6, 3, dtype=torch.float64)
    apart = [
        torch.nn.functional.conv2d(y, k.weight, k.bias, padding=padding, groups=4)
        for k, padding in zip(block.kernels, [(1, 1), (2, 0)], strict=True)
    ]
    assert_close(block(y), y + sum(apart))


def test_position_conv_rejects_even_kernels():
    with pytest.raises(ValueError, match=r"`kernels` must be of odd height and width, got \[\(3, 2\)\]"):
        PositionConv(8, [(3, 2)])
