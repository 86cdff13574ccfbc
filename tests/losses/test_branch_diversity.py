"""Tests of BranchDiversityLoss beyond the laws of all losses on attention, which are in tests/contracts."""

import numpy as np
import torch
from torch.testing import assert_close

from monai_mil_ext.losses import BranchDiversityLoss
from tests.golden.reference_acmil import diversity


def test_branch_diversity_matches_reference():
    attention = torch.rand(3, 9, 4, dtype=torch.float64)
    mask = torch.arange(9) < torch.tensor([[9], [2], [5]])
    expected = [diversity(bag[real].numpy()) for bag, real in zip(attention, mask, strict=True)]
    assert_close(BranchDiversityLoss(reduction="none")(attention, mask), torch.tensor(np.array(expected)))
    assert_close(BranchDiversityLoss()(attention, mask).item(), np.mean(expected))


def test_branch_diversity_of_equal_and_disjoint_branches():
    row = torch.rand(2, 9, 1).softmax(1)
    assert_close(BranchDiversityLoss()(row.expand(-1, -1, 5)).item(), 1.0)
    assert BranchDiversityLoss()(torch.eye(5).unsqueeze(0)) == 0
    assert BranchDiversityLoss()(row) == 0
