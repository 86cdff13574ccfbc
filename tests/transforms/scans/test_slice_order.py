"""Tests of the order of slices, rows and columns in the voxel array of a scan."""

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from torch.testing import assert_close

from monai_mil_ext.transforms import SliceBag
from monai_mil_ext.transforms.scans.slice_order import SliceOrder, checked_affine
from tests.transforms.geometry import ORDERS, PLANES, affines, reordered, scan


@given(affine=affines(), order=st.sampled_from(ORDERS), plane=st.sampled_from(PLANES))
def test_slice_order_undo_is_the_inverse_of_apply(affine, order, plane):
    volume = reordered(scan((5, 4, 3), affine), *order)
    slice_order = SliceOrder.of(volume.affine, plane)
    slices = slice_order.apply(volume.as_tensor())
    assert torch.equal(slice_order.undo(slices), volume.as_tensor())
    positions = slice_order.positions(volume.affine, volume.shape[1:])
    assert len(positions) == slices.shape[1]
    assert (positions.diff() > 0).all()


@given(affine=affines(), order=st.sampled_from(ORDERS), plane=st.sampled_from(PLANES))
def test_slice_order_corners_do_not_depend_on_the_voxel_array(affine, order, plane):
    original = scan((5, 4, 3), affine)
    other = reordered(original, *order)
    expected, corners = (
        SliceOrder.of(volume.affine, plane).corners(volume.affine, torch.tensor(volume.shape[1:]))
        for volume in (original, other)
    )
    assert_close(corners, expected, atol=1e-6, rtol=0)


def test_checked_affine_returns_a_copy():
    image = scan((5, 4, 3), np.diag([1.0, 2, 3, 1]))
    affine = checked_affine(image)
    affine[0, 0] = 7
    assert affine.dtype == torch.float64
    assert image.affine[0, 0] == 1


@pytest.mark.parametrize(
    ("image", "match"),
    [
        (torch.zeros(1, 5, 4, 3), "`image` must be a MetaTensor, .* got Tensor"),
        (MetaTensor(torch.zeros(1, 5, 4, 0)), r"a scan of shape \(C, X, Y, Z\), got \(1, 5, 4, 0\)"),
        (scan((5, 4, 3), np.diag([1.0, 0, 1, 1])), r"an invertible affine \(4, 4\), got"),
        (MetaTensor(torch.zeros(1, 5, 4, 3), meta={"space": "LPS"}), "an affine in RAS mm, got one in LPS"),
    ],
)
def test_checked_affine_names_invalid_scans(image, match):
    with pytest.raises(ValueError, match=match):
        checked_affine(image)


def test_slice_order_agrees_with_nibabel():
    """Reference: axis codes of nibabel for an affine rotated by 30 degrees."""
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    affine = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, -2, 0], [0, 0, 0, 1]])
    volume = scan((5, 4, 3), affine)
    assert nib.aff2axcodes(affine) == ("R", "A", "I")
    expected = volume.as_tensor()[0].flip(0, 1, 2).permute(2, 1, 0)
    assert torch.equal(SliceBag()(volume).bag[:, 0], expected)
