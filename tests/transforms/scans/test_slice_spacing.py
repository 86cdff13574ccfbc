"""Tests of CheckSliceSpacing: all gaps are named, without false alarms."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_mil_ext.transforms import CheckSliceSpacing, CheckSliceSpacingd, SliceBagd, SliceSelection
from tests.transforms.geometry import PLANES, affines, scan


@given(affine=affines(), plane=st.sampled_from(PLANES), stride=st.integers(1, 3))
def test_check_slice_spacing_accepts_every_bag_of_a_scan(affine, plane, stride):
    selection = SliceSelection(stride=stride, foreground=lambda x: x % 7 == 0)
    item = SliceBagd("image", plane, selection=selection)({"image": scan((9, 9, 9), affine)})
    position = item["position"]
    assert CheckSliceSpacingd()(item)["position"] is position
    assert CheckSliceSpacing()(position[:1]) is not None
    assert CheckSliceSpacing()(position[:0]) is not None


@pytest.mark.parametrize(
    ("position", "index", "got"),
    [
        ([0, 5, 15, 20], None, "got 10 mm between slices 1 and 2 (5 and 15 mm; 1 missing) where 5 mm is usual."),
        ([0, 2.5, 5, 7.5, 17.5], [3, 4, 5, 6, 7], "got 10 mm between slices 6 and 7 (7.5 and 17.5 mm; 3 missing)"),
        ([0, 2.5, 5, 7.5, 17.5], [3, 4, 5, 6, 8], "10 mm between slices 6 and 8 (7.5 and 17.5 mm; 2 missing)"),
        (
            [0, 5, 10, 12.5, 20, 25],
            None,
            "2.5 mm between slices 2 and 3 (10 and 12.5 mm), 7.5 mm between slices 3 and 4 (12.5 and 20 mm",
        ),
        ([0, 5, 10, 15, 20, 30, 40], [0, 1, 2, 3, 4, 5, 6], "(20 and 30 mm; 1 missing), 10 mm between slices 5 and 6"),
        (np.cumsum([5] * 20 + [9, 5] * 8), None, "(156 and 165 mm; 1 missing) and 3 more gaps where 5 mm is usual"),
    ],
)
def test_check_slice_spacing_names_every_gap(position, index, got):
    item = {"position": torch.as_tensor(position).float()}
    if index is not None:
        item["slice_index"] = torch.tensor(index)
    with pytest.raises(ValueError, match="`position` must be evenly spaced, got ") as error:
        CheckSliceSpacingd()(item)
    assert got in str(error.value)


def test_check_slice_spacing_accepts_slices_left_out_on_purpose():
    position = torch.tensor([0.0, 5.0, 15.0, 30.0])
    assert CheckSliceSpacing()(position, torch.tensor([0, 1, 3, 6])) is position
    assert CheckSliceSpacing()(position.numpy(), np.array([0, 1, 3, 6])) is not None


def test_check_slice_spacing_tolerance():
    position = np.array([0.0, 5.0, 10.05, 15.0])
    CheckSliceSpacing(tolerance=0.01)(position)
    with pytest.raises(ValueError, match=r"got 5\.05 mm between slices 1 and 2"):
        CheckSliceSpacing(tolerance=0)(position)
    with pytest.raises(ValueError, match=r"`tolerance` must be at least 0 and below 0\.5, got 0\.5"):
        CheckSliceSpacing(tolerance=0.5)


def test_check_slice_spacing_accepts_positions_that_are_rounded():
    for step in (0.625, 1.3333, 6.97):
        position = np.round(np.arange(200) * step, 1)
        CheckSliceSpacing()(position)
        with pytest.raises(ValueError, match=r"between slices 99 and 100 .*; 1 missing\) where"):
            CheckSliceSpacing()(np.delete(position, 100))


@pytest.mark.parametrize(
    ("position", "index", "match"),
    [
        ([0, 5, 5], None, "must ascend with the slices, got slice 1 at 5 mm before slice 2 at 5 mm"),
        ([0, 10, 5], None, "must ascend with the slices, got slice 1 at 10 mm before slice 2 at 5 mm"),
        ([0, 5, 10], [0, 2, 1], "must ascend with the slices, got slice 2 at 5 mm before slice 1 at 10 mm"),
        ([0, float("nan")], None, "`position` must be finite, got nan"),
        ([[0, 1]], None, r"`position` must have shape \(N,\), as `slice_index` has, got \(1, 2\) for \(1,\)"),
        ([0, 1], [0], r"got \(2,\) for \(1,\)"),
    ],
)
def test_check_slice_spacing_names_invalid_positions(position, index, match):
    with pytest.raises(ValueError, match=match):
        CheckSliceSpacing()(torch.tensor(position), None if index is None else torch.tensor(index))
