"""Tests of case IDs, dropping padding and averaging heads."""

import numpy as np
import pytest
import torch

from monai_mil_ext.utils import check_case_ids, drop_padding, head_mean


def test_drop_padding_keeps_all_rows_without_a_mask():
    assert drop_padding([1, 2], {}).tolist() == [1, 2]


def test_drop_padding_takes_arrays_and_more_axes():
    value = np.arange(6).reshape(3, 2)
    assert drop_padding(value, {"mask": np.array([True, False, True])}).tolist() == [[0, 1], [4, 5]]


def test_head_mean_leaves_one_head_alone():
    score = torch.tensor([0.2, 0.8])
    assert head_mean(score) is score


def test_check_case_ids_names_every_place():
    check_case_ids([])
    items = [{"case_id": case} for case in "abab"]
    with pytest.raises(ValueError, match="must be unique, got 'a' in item 0 and item 2, 'b' in item 1 and item 3"):
        check_case_ids(items)
    with pytest.raises(ValueError, match="got 'a' in row 2 and row 3"):
        check_case_ids(items[::2], ["row 2", "row 3"])
    for item in ({}, {"case_id": "../a"}, {"case_id": None}):
        with pytest.raises(ValueError, match="must be letters"):
            check_case_ids([item])
