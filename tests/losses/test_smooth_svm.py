"""Tests of the smooth SVM loss beyond the laws of all label losses, which are in tests/contracts."""

import pytest
import torch
from torch.nn.functional import softplus
from torch.testing import assert_close

from monai_mil_ext.losses import SmoothSVMLoss
from tests.networks.baseline_cases import DATA


@pytest.mark.parametrize("row", DATA["smooth_top1_svm"], ids=lambda row: f"{row['scores']}-{row['target']}")
def test_smooth_svm_matches_the_published_code(row):
    scores = torch.tensor([row["scores"]], dtype=torch.float64, requires_grad=True)
    value = SmoothSVMLoss()(scores, torch.tensor([row["target"]]))
    value.backward()
    assert_close(value.item(), row["loss"], rtol=0, atol=1e-9)
    assert_close(scores.grad[0], torch.tensor(row["gradient"], dtype=torch.float64), rtol=0, atol=1e-9)


def test_two_classes_without_switch_are_a_logistic_loss():
    z = torch.randn(9, 2, dtype=torch.float64) * 9
    loss = SmoothSVMLoss(alpha=0.5, switch=False, reduction="none")
    assert_close(loss(z, torch.ones(9)), softplus(0.5 + z[:, 0] - z[:, 1]))


def test_a_single_score_is_refused():
    with pytest.raises(ValueError, match="two or more columns, got 1"):
        SmoothSVMLoss()(torch.zeros(2, 1), torch.zeros(2))
