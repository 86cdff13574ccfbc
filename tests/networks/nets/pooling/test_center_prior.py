"""Tests of CenterPrior beyond the laws of all networks, which are in tests/contracts."""

import pytest
import torch
from torch.testing import assert_close

from monai_mil_ext.metrics import center_scores
from monai_mil_ext.networks.nets import CenterPrior


@pytest.mark.parametrize("n", [1, 2, 7, 300])
def test_center_prior_scores_match_the_metric(n):
    out = CenterPrior(4, 3).forward_bag(torch.randn(2, n, 4))
    assert_close(out.scores[0, :, 0].double(), center_scores(n), rtol=0, atol=0)
    assert len(out.scores[0].unique()) == (n + 1) // 2
    assert torch.equal(out.logits, torch.zeros(2, 3))
    density = torch.distributions.Normal((n + 1) / 2, 1).log_prob(torch.arange(1.0, n + 1)).softmax(0)
    assert_close(out.attention[1, :, 0], density)


def test_center_prior_uses_the_middle_of_valid_instances():
    mask = torch.tensor([[False, True, True, False, True], [True, True, False, False, False]])
    out = CenterPrior(4, 1).forward_bag(torch.full((2, 5, 4), torch.nan), mask)
    assert out.scores[0, mask[0], 0].tolist() == [-1, 0, -1]
    assert out.scores[1, mask[1], 0].tolist() == [-0.5, -0.5]
    assert out.attention[1].flatten().tolist() == [0.5, 0.5, 0, 0, 0]
    assert not out.logits.any()


def test_center_prior_has_no_parameters():
    assert list(CenterPrior(4, 1).parameters()) == []
    with pytest.raises(ValueError, match="`num_classes` must be a positive integer, got 0"):
        CenterPrior(4, 0)
