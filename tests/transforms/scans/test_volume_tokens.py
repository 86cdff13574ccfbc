"""Tests of VolumeTokens: positions of tokens, and the inverse TokenScoresToVolume."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from torch import nn
from torch.testing import assert_close

from monai_mil_ext.data import FeatureCache
from monai_mil_ext.networks.encoders import VolumeEncoder
from monai_mil_ext.transforms import LoadBagd, TokenScoresToVolume, TokenScoresToVolumed, VolumeTokens, VolumeTokensd

OBLIQUE = torch.tensor([[0.7, -0.2, 0.1, 10], [0.3, 0.8, 0.2, -20], [-0.1, 0.1, 2.5, 30], [0, 0, 0, 1]]).double()


def patches(size=4):
    """Return an encoder that averages cubes."""
    net = nn.Conv3d(1, 1, size, stride=size, bias=False)
    nn.init.constant_(net.weight, 1 / size**3)
    return VolumeEncoder(net)


@given(shape=st.tuples(*[st.integers(1, 3)] * 3), patch=st.integers(1, 4))
def test_volume_tokens_positions_are_the_centers_of_boxes(shape, patch):
    shape = [n * patch for n in shape]
    # an image of a coordinate: the mean over a box is the coordinate of its middle
    axes = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in shape], indexing="ij")
    places = torch.stack([*axes, torch.ones_like(axes[0])], -1) @ OBLIQUE.T
    scans = [MetaTensor(places[None, ..., a] / 1000 + 0.5, affine=OBLIQUE) for a in range(3)]
    tokens = [VolumeTokens(patches(patch))(scan) for scan in scans]
    means = torch.cat([t.bag for t in tokens], 1)
    assert_close((means - 0.5) * 1000, tokens[0].position, atol=1e-3, rtol=1e-4)


def test_token_scores_to_volume_fills_the_boxes_of_tokens():
    scan = MetaTensor(torch.rand(1, 8, 12, 4), affine=OBLIQUE)
    tokens = VolumeTokens(patches())(scan)
    assert tokens.grid_shape.tolist() == [2, 3, 1]
    volume = TokenScoresToVolume()(tokens.bag, tokens.grid_shape, tokens.affine, tokens.spatial_shape)
    assert_close(torch.nn.functional.avg_pool3d(volume[None].as_tensor(), 4)[0, 0].flatten(), tokens.bag[:, 0])
    assert_close(volume[0, :4, 4:8, :].as_tensor(), tokens.bag[1].expand(4, 4, 4))
    assert torch.equal(volume.affine, OBLIQUE)
    voxel = torch.cat([tokens.position.double(), torch.ones(6, 1)], 1) @ torch.linalg.inv(OBLIQUE).T
    assert_close(voxel[1, :3], torch.tensor([1.5, 5.5, 1.5]).double(), atol=1e-4, rtol=0)


def test_token_scores_to_volume_of_uneven_boxes_and_two_heads():
    scores = torch.tensor([[1.0, 10.0], [2.0, 20.0]])
    volume = TokenScoresToVolume()(scores, [1, 1, 2], torch.eye(4), [2, 2, 5])
    assert volume[:, 0, 0].tolist() == [[1, 1, 2, 2, 2], [10, 10, 20, 20, 20]]
    smooth = TokenScoresToVolume("linear")(scores[:, 0], [1, 1, 2], torch.eye(4), [2, 2, 4])
    assert smooth[0, 0, 0].tolist() == [1, 1.25, 1.75, 2]


def test_volume_tokensd_in_a_cache(tmp_path):
    scan = {"image": MetaTensor(torch.rand(1, 8, 8, 8), affine=OBLIQUE), "case_id": "a"}
    keys = ["image", "position", "grid_shape", "affine", "spatial_shape"]
    items = FeatureCache(tmp_path, VolumeTokensd("image", patches()), keys, progress=False)([scan])
    bag = LoadBagd(keys)(items[0])
    expected = VolumeTokensd("image", patches())(scan)
    for key in keys:
        assert_close(torch.as_tensor(bag[key]), expected[key])
    padded = {**bag, "image": torch.cat([bag["image"], torch.ones(2, 1)]), "mask": torch.arange(10) < 8}
    volume = TokenScoresToVolumed("image")(padded)["image"]
    np.testing.assert_allclose(volume[0, ::4, ::4, ::4].flatten(), bag["image"][:, 0])


def test_volume_tokens_restores_the_encoder():
    net = nn.Sequential(nn.Conv3d(1, 2, 2, stride=2), nn.BatchNorm3d(2)).train()
    bag = VolumeTokens(net)(MetaTensor(torch.rand(1, 4, 4, 4)))[0]
    assert not bag.requires_grad
    assert net.training
    assert net[1].num_batches_tracked == 0


def test_volume_tokens_names_invalid_arguments():
    with pytest.raises(ValueError, match="`image` must be a MetaTensor"):
        VolumeTokens(patches())(torch.rand(1, 4, 4, 4))
    with pytest.raises(ValueError, match=r"`encoder` must give a map \(1, F, x, y, z\), got \(1, 64\)"):
        VolumeTokens(nn.Flatten())(MetaTensor(torch.rand(1, 4, 4, 4)))
    with pytest.raises(ValueError, match=r"`scores` must have one row for each token of \[1, 1, 2\], got \(3, 1\)"):
        TokenScoresToVolume()(torch.rand(3), [1, 1, 2], torch.eye(4), [2, 2, 5])
    with pytest.raises(ValueError, match="`mode` must be one of 'nearest', 'linear', got 'cubic'"):
        TokenScoresToVolume("cubic")
