"""Tests of NystromAttention and its pseudo-inverse."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from monai_mil_ext.networks.blocks import NystromAttention
from monai_mil_ext.networks.blocks.nystrom_attention import pseudo_inverse
from tests.golden import reference_transmil as reference
from tests.helpers import fill

SIZES = [11, 3, 8]


def test_nystrom_attention_matches_reference_for_bags_of_different_sizes():
    attend = fill(NystromAttention(8, num_heads=2, num_landmarks=4).double())
    ones, zeros = np.ones(8), np.zeros(8)
    tokens = np.cos(np.arange(len(SIZES) * 11 * 8) * 0.37).reshape(len(SIZES), 11, 8)
    normed = torch.tensor(reference.layer_norm(tokens, ones, zeros))
    params = [p.detach().numpy() for p in (attend.kernel, attend.project.weight, *attend.merge.parameters())]
    out = attend(normed, torch.tensor(SIZES))
    for i, n in enumerate(SIZES):
        expected, scores = reference.nystrom(tokens[i, :n], [ones, zeros, *params], heads=2, landmarks=4)
        assert_close(out[i, :n], torch.tensor(expected), rtol=1e-9, atol=1e-9)
        assert_close(attend.cls_scores(normed[i : i + 1, :n])[0], torch.tensor(scores.T), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_landmarks": 0}, "`num_landmarks` must be a positive integer, got 0"),
        ({"num_heads": 3}, "`num_heads` must divide the size 8 of a token, got 3"),
        ({"dropout": 1.0}, r"`dropout` must be in \[0, 1\), got 1.0"),
    ],
)
def test_nystrom_attention_rejects_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        NystromAttention(8, **{"num_heads": 2, "num_landmarks": 4} | options)


def test_pseudo_inverse_inverts_well_conditioned_matrices():
    eye = torch.eye(64, dtype=torch.float64)
    a = (4 * eye + 0.1 * torch.randn(3, 64, 64, dtype=torch.float64)).softmax(-1)
    assert_close(pseudo_inverse(a) @ a, eye.expand(3, -1, -1), rtol=0, atol=1e-6)
    assert_close(pseudo_inverse(a)[1:2], pseudo_inverse(a[1:2]), rtol=0, atol=0)


def test_pseudo_inverse_takes_six_steps():
    a = (8 * torch.rand(1, 256, 256, dtype=torch.float64) + 4 * torch.eye(256, dtype=torch.float64)).softmax(-1)
    assert (pseudo_inverse(a) @ a - torch.eye(256)).abs().max() > 0.1
    assert_close(pseudo_inverse(a)[0], torch.tensor(reference.pseudo_inverse(a[0].numpy())))
