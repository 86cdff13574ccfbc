"""Tests of dropping padding and averaging heads."""

import numpy as np
import torch

from monai_mil_ext.utils import drop_padding, head_mean


def test_drop_padding_keeps_all_rows_without_a_mask():
    assert drop_padding([1, 2], {}).tolist() == [1, 2]


def test_drop_padding_takes_arrays_and_more_axes():
    value = np.arange(6).reshape(3, 2)
    assert drop_padding(value, {"mask": np.array([True, False, True])}).tolist() == [[0, 1], [4, 5]]


def test_head_mean_leaves_one_head_alone():
    score = torch.tensor([0.2, 0.8])
    assert head_mean(score) is score
