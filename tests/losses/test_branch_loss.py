"""Tests of BranchLoss, the mean of a loss over branches."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from monai_mil_ext.losses import BranchLoss, MultiLabelLoss, OrdinalLoss
from tests.golden.reference_acmil import cross_entropy


def test_branch_loss_is_the_mean_of_the_reference():
    logits, label = torch.randn(3, 4, 5, dtype=torch.float64), torch.tensor([4, 0, 2])
    each = [cross_entropy(row, y) for bag, y in zip(logits.numpy(), label.tolist(), strict=True) for row in bag]
    assert_close(BranchLoss(nn.CrossEntropyLoss())(logits, label).item(), sum(each) / 12, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("loss", "label"),
    [
        (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2, 5])), torch.tensor([2, 0])),
        (MultiLabelLoss(), torch.tensor([[1.0, torch.nan, 0], [0, 0, 1]])),
        (OrdinalLoss(), torch.tensor([3, 1])),
    ],
)
def test_branch_loss_takes_the_loss_of_any_task(loss, label):
    logits = torch.randn(2, 4, 3)
    equal_branches = logits[:, :1].expand(2, 4, 3)
    assert_close(BranchLoss(loss)(equal_branches, label), loss(logits[:, 0], label))
    order = torch.randperm(4)
    assert_close(BranchLoss(loss)(logits[:, order], label), BranchLoss(loss)(logits, label))


def test_branch_loss_averages_unreduced_losses():
    logits, label = torch.randn(2, 4, 3), torch.tensor([2, 0])
    whole, each = BranchLoss(nn.CrossEntropyLoss()), BranchLoss(nn.CrossEntropyLoss(reduction="none"))
    assert_close(each(logits, label), whole(logits, label))


def test_branch_loss_computes_half_precision_in_float32():
    logits, label = torch.randn(2, 4, 3, dtype=torch.bfloat16), torch.tensor([2, 0])
    with torch.autocast("cpu", torch.bfloat16):
        value = BranchLoss(nn.CrossEntropyLoss())(logits, label)
    assert value.dtype == torch.float32
    assert_close(value, BranchLoss(nn.CrossEntropyLoss())(logits.float(), label), rtol=0, atol=0)


@pytest.mark.parametrize("logits", [torch.zeros(2, 3), torch.zeros(2, 0, 3), torch.zeros(2, 1, 3).long()])
def test_branch_loss_rejects_bad_logits(logits):
    with pytest.raises(
        ValueError, match=r"`logits` must be floating point of shape \(B, K, C\) with K >= 1, got torch"
    ):
        BranchLoss(nn.CrossEntropyLoss())(logits, torch.tensor([0, 1]))


def test_branch_loss_of_no_bags_is_zero():
    logits = torch.zeros(0, 3, 2, requires_grad=True)
    value = BranchLoss(nn.CrossEntropyLoss())(logits, torch.zeros(0).long())
    value.backward()
    assert value.item() == 0


def test_branch_loss_of_missing_branches_is_the_mean_over_bags_of_the_mean_over_the_others():
    logits, label = torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True), torch.tensor([1, 0, 1, 0])
    counts = torch.tensor([3, 1, 0, 1])
    present = torch.arange(3) < counts[:, None]
    loss = BranchLoss(nn.CrossEntropyLoss())
    value = loss(logits.masked_fill(~present[..., None], -torch.inf), label)
    (gradient,) = torch.autograd.grad(value, logits)
    each = [loss(logits[i : i + 1, :k], label[i : i + 1]) for i, k in enumerate(counts.tolist()) if k]
    assert_close(value, torch.stack(each).mean())
    assert_close(gradient, torch.autograd.grad(torch.stack(each).mean(), logits)[0])
    assert loss(torch.full((2, 3, 2), -torch.inf), label[:2]) == 0


@pytest.mark.parametrize("branches", [1, 2, 5, 7])
def test_branch_loss_weighs_any_number_of_present_branches_alike(branches):
    counts = torch.arange(1, branches + 1)
    logits, label = torch.randn(branches, branches, 3, dtype=torch.float64), torch.arange(branches) % 3
    present = torch.arange(branches) < counts[:, None]
    each = cross_entropy_of_each(logits, label)
    expected = ((each * present).sum(1) / counts).mean()
    value = BranchLoss(nn.CrossEntropyLoss())(logits.masked_fill(~present[..., None], -torch.inf), label)
    assert_close(value, expected, rtol=1e-12, atol=1e-12)


def cross_entropy_of_each(logits, label):
    return nn.functional.cross_entropy(
        logits.flatten(0, 1), label.repeat_interleave(logits.shape[1]), reduction="none"
    ).view(logits.shape[:2])


def test_branch_loss_with_class_weights_is_that_of_the_bags_with_branches():
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2, 5]))
    logits, label = torch.randn(3, 2, 3), torch.tensor([2, 1, 0])
    logits[:, 1] = -torch.inf  # all bags have their first branch alone
    assert_close(BranchLoss(loss)(logits, label), loss(logits[:, 0], label))


def test_branch_loss_keeps_the_nan_of_a_diverged_network():
    assert BranchLoss(nn.CrossEntropyLoss())(torch.full((2, 3, 2), torch.nan), torch.tensor([1, 0])).isnan()


def test_branch_loss_of_missing_branches_needs_a_tensor_as_label():
    with pytest.raises(ValueError, match="`label` must be a tensor if bags lack branches, got list"):
        BranchLoss(nn.CrossEntropyLoss())(torch.tensor([[[0.0], [-torch.inf]]]), [1])
