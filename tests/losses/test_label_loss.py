"""Tests of LabelLoss, the base class of losses on labels; its laws are in tests/contracts."""

import pytest
import torch
from torch.testing import assert_close

from monai_mil_ext.losses.label_loss import LabelLoss

NAN = torch.nan


def test_label_loss_float_logits_widens_half_precision_only():
    loss = LabelLoss()
    dtypes = {torch.float16: torch.float32, torch.bfloat16: torch.float32, torch.float64: torch.float64}
    for dtype, expected in dtypes.items():
        assert loss.float_logits(torch.zeros(2, 3, dtype=dtype)).dtype == expected
    with pytest.raises(ValueError, match=r"`logits` must be floating point .* got torch.int64 \(2, 3\)"):
        loss.float_logits(torch.zeros(2, 3).long())


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float32])
def test_label_loss_class_indices_accept_any_dtype(dtype):
    label = torch.tensor([0, 2, 1], dtype=dtype)
    assert LabelLoss().class_indices("label", label, torch.zeros(3, 3), 2).tolist() == [[0], [2], [1]]


@pytest.mark.parametrize("value", [-1.0, 3.0, 0.5, NAN])
def test_label_loss_class_indices_reject_other_numbers(value):
    with pytest.raises(ValueError, match=f"`label` must be whole numbers from 0 to 2, got {value}"):
        LabelLoss().class_indices("label", torch.tensor([0.0, value]), torch.zeros(2, 3), 2)


def test_label_loss_known_labels_masks_nan():
    y, known = LabelLoss().known_labels(torch.tensor([1.0, NAN]), torch.zeros(2, 1, dtype=torch.float64))
    assert y.dtype == torch.float64
    assert y.tolist() == [[1.0], [0.0]]
    assert known.tolist() == [[True], [False]]
    with pytest.raises(ValueError, match=r"`label` must have shape \(B, C\) = \(2, 3\), got \(2,\)"):
        LabelLoss().known_labels(torch.zeros(2), torch.zeros(2, 3))


def test_label_loss_reduce_ignores_unknown_entries():
    values, known = torch.tensor([[1.0, NAN], [2.0, 4.0]]), torch.tensor([[True, False], [True, False]])
    assert LabelLoss("mean").reduce(values, known) == 1.5
    assert LabelLoss("sum").reduce(values, known) == 3
    assert_close(LabelLoss("none").reduce(values, known), torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    assert LabelLoss().reduce(values, known & False) == 0
    assert LabelLoss().reduce(torch.zeros(0)) == 0


def test_label_loss_rejects_unknown_reduction():
    with pytest.raises(ValueError, match="`reduction` must be one of 'mean', 'sum', 'none', got 'median'"):
        LabelLoss("median")
