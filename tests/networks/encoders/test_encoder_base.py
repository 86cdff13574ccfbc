"""Tests of InputSpec, the declared input of an encoder."""

import pytest
import torch
from torch import nn

from monai_mil_ext.networks.encoders import InputSpec, InstanceEncoder

COLOR = InputSpec(3, None, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def conv_net():
    layers = (nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
    return nn.Sequential(*layers)


def test_input_spec_value_range_has_tolerance_and_is_optional():
    x = torch.full((1, 3, 8, 8), 1.009)
    InstanceEncoder(conv_net(), COLOR)(x)
    InstanceEncoder(conv_net(), InputSpec(3, value_range=None))(x * 1000)
    assert InstanceEncoder(conv_net(), COLOR)(torch.rand(0, 3, 8, 8)).shape == (0, 4)


def test_input_spec_rejects_contradictions():
    with pytest.raises(ValueError, match=r"`mean` must have 1 or 3 numbers, got \[0.1, 0.2\]"):
        InputSpec(3, mean=(0.1, 0.2))
    with pytest.raises(ValueError, match=r"`std` must be positive, got \[0.0\]"):
        InputSpec(3, std=(0.0,))
    with pytest.raises(ValueError, match="`channels` must be a positive integer, got 0"):
        InputSpec(0)
