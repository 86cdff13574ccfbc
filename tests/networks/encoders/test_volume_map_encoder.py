"""Tests of VolumeEncoder."""

import pytest
import torch
from torch import nn

from monai_mil_ext.networks.encoders import InputSpec, VolumeEncoder


def test_volume_encoder_encodes_volumes():
    encoder = VolumeEncoder(nn.Conv3d(1, 8, 4, stride=4), InputSpec(1, (16, 16, 8)), amp_dtype=torch.bfloat16)
    features = encoder(torch.rand(1, 1, 16, 16, 8))
    assert (features.shape, features.dtype) == ((1, 8, 4, 4, 2), torch.float32)
    assert torch.equal(features, features.bfloat16().float())  # computed in bfloat16
    with pytest.raises(ValueError, match=r"`x` must have shape \(N, 1, x, y, z\) for Conv3d, got \(1, 2, 16, 16, 8\)"):
        encoder(torch.rand(1, 2, 16, 16, 8))
    with pytest.raises(ValueError, match="`net` must be a network of volumes, got one of 2 axes"):
        VolumeEncoder(nn.Conv2d(1, 1, 1))
    flat = VolumeEncoder(nn.Flatten(), InputSpec(1, (4, 4, 4)))
    with pytest.raises(ValueError, match=r"`net` must give a map \(B, F, x, y, z\), got \(1, 64\)"):
        flat(torch.rand(1, 1, 4, 4, 4))
