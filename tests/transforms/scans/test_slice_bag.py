"""Tests of SliceBag: slices in radiological orientation, independent of the order of the voxel array."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Flip, Orientation, Resize, SpatialCrop
from torch.testing import assert_close

from monai_mil_ext.transforms import SliceBag, SliceBagd, SliceSelection
from tests.transforms.geometry import ORDERS, PLANES, affines, reordered, scan


@given(affine=affines(), order=st.sampled_from(ORDERS), plane=st.sampled_from(PLANES), size=st.sampled_from([None, 4]))
def test_slice_bag_does_not_depend_on_the_order_of_the_voxel_array(affine, order, plane, size):
    original = scan((5, 4, 3), affine)
    other = reordered(original, *order)
    expected, got = (SliceBag(plane, size)(s) for s in (original, other))
    assert torch.equal(got.bag, expected.bag)
    assert_close(got.position, expected.position, atol=1e-3, rtol=0)
    assert torch.equal(got.affine, other.affine)
    assert got.spatial_shape.tolist() == list(other.shape[1:])


@given(affine=affines(), plane=st.sampled_from(PLANES))
def test_slice_bag_positions_are_those_of_all_voxels(affine, plane):
    """With RAS coordinates as channels, each slice is a plane at its position, in ascending order."""
    index = np.stack(np.meshgrid(*map(np.arange, (5, 4, 3)), indexing="ij"))
    points = np.einsum("ij,jxyz->ixyz", affine[:3, :3], index) + affine[:3, 3].reshape(3, 1, 1, 1)
    slices = SliceBag(plane)(MetaTensor(torch.as_tensor(points), affine=torch.as_tensor(affine)))
    bag = slices.bag.double()
    growing = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}[plane]
    normal = torch.as_tensor(affine)[:3, growing[0]]  # the axes of these scans are orthogonal
    heights = torch.einsum("ncij,c->nij", bag, normal / normal.norm())
    assert_close(heights, slices.position.double()[:, None, None].expand_as(heights), atol=1e-3, rtol=0)
    assert (slices.position.diff() > 0).all()
    assert slices.slice_index.tolist() == list(range(len(bag)))
    for axis, (component, sign) in enumerate(zip(growing, (1, -1, -1), strict=True)):
        step = bag.transpose(0, 1).diff(dim=axis + 1)[component]
        assert (step.sign() == sign).all()


@pytest.mark.parametrize(("plane", "axcodes"), [("axial", "SPL"), ("coronal", "AIL"), ("sagittal", "RIP")])
def test_slice_bag_equals_monai_orientation(plane, axcodes):
    volume = scan((5, 4, 3), np.diag([-1.0, 2.0, -3.0, 1.0]))
    expected = Orientation(axcodes, labels=(("L", "R"), ("P", "A"), ("I", "S")))(volume).as_tensor()
    bag = SliceBag(plane)(volume).bag
    assert torch.equal(bag, expected.transpose(0, 1))
    assert type(bag) is MetaTensor
    assert bag.is_contiguous()
    assert bag.dtype == torch.float32


def test_slice_bag_positions_of_a_sheared_scan_are_along_its_normal():
    affine = np.array([[1.0, 0, 0.5, 7], [0, 1, 0, 0], [0, 0, 2, -4], [0, 0, 0, 1]])
    assert SliceBag()(scan((3, 3, 3), affine)).position.tolist() == [-4, -2, 0]


def test_slice_bag_of_a_single_slice():
    slices = SliceBag()(scan((5, 4, 1), np.diag([1.0, 1, 2.5, 1])))
    assert tuple(slices.bag.shape) == (1, 1, 4, 5)
    assert slices.position.tolist() == [0]


def test_slice_bag_pads_with_the_minimum_and_keeps_masks():
    volume = torch.full((1, 2, 6, 1), 3.0)
    volume[0, 0, 0, 0] = -5.0
    bag = SliceBag(spatial_size=6)(MetaTensor(volume)).bag
    assert bag[0, 0, :, :2].eq(-5).all()
    assert bag[0, 0, :, 4:].eq(-5).all()
    assert bag[0, 0, :, 2:4].sum() == 11 * 3 - 5
    mask = (torch.rand(1, 7, 9, 3) > 0.5).float()
    small = SliceBag(spatial_size=5, mode="nearest")(MetaTensor(mask)).bag
    assert set(small.unique().tolist()) == {0, 1}
    whole = SliceBag()(scan((9, 9, 2), np.eye(4))).bag
    third = SliceBag(spatial_size=3, mode="nearest")(scan((9, 9, 2), np.eye(4))).bag
    assert torch.equal(third, whole[:, :, 1::3, 1::3])


def test_slice_bag_resizing_is_antialiased():
    """A fine checkerboard becomes gray, not black or white."""
    board = ((torch.arange(24)[:, None] + torch.arange(24)) % 2).float()
    bag = SliceBag(spatial_size=8)(MetaTensor(board[None, :, :, None])).bag
    assert (bag[..., 1:-1, 1:-1] - 0.5).abs().max() < 0.1


def test_slice_bagd_stores_the_geometry():
    image = scan((5, 4, 3), np.diag([1.0, 1, 2, 1]))
    mask = reordered(scan((5, 4, 3), np.diag([1.0, 1, 2, 1])), (2, 0, 1), (True, False, True))
    out = SliceBagd(["image", "label", "other"], mode="nearest", allow_missing_keys=True)(
        {"image": image, "label": mask, "case_id": "a"}
    )
    assert list(out) == [
        "image",
        "label",
        "case_id",
        "position",
        "validity",
        "slice_index",
        "affine",
        "spatial_shape",
        "plane",
    ]
    assert torch.equal(out["image"], out["label"])
    assert torch.equal(out["affine"], image.affine)
    assert out["spatial_shape"].tolist() == [5, 4, 3]
    assert {type(v) for k, v in out.items() if k not in ("case_id", "image", "label", "plane")} == {torch.Tensor}
    assert {type(k) for k in out} == {str}


def series():
    """Return a scan whose slices are numbered as DICOM does, and carry their number as the value of a voxel."""
    affine = torch.diag(torch.tensor([-1.0, -1.0, -2.5, 1.0], dtype=torch.float64))
    image = MetaTensor(torch.rand(1, 6, 5, 8) / 4, affine=affine)
    numbers = np.array([7, 3, 4, 5, 12, 8, 1, 9])
    image[:, 1:4, 1:4] = torch.as_tensor(numbers)
    image.meta.update(instance_number=numbers, original_affine=affine.numpy())
    return image


@pytest.mark.parametrize(
    "change", [None, Flip(2), Flip([0, 2]), SpatialCrop([1, 1, 2], [5, 5, 7]), Orientation("SAR"), Orientation("PLI")]
)
@pytest.mark.parametrize("selection", [None, SliceSelection(start_mm=4, stride=2)])
def test_slice_bagd_hands_over_the_numbers_of_dicom_slices(change, selection):
    image = series() if change is None else change(series())
    out = SliceBagd("image", selection=selection)({"image": image})
    assert out["instance_number"].tolist() == out["image"].amax((1, 2, 3)).tolist()


@pytest.mark.parametrize(
    ("plane", "change"), [("coronal", None), ("sagittal", Flip(2)), ("axial", Resize([6, 5, 11])), ("coronal", Flip(1))]
)
def test_slice_bagd_numbers_no_slices_that_are_not_those_of_the_series(plane, change):
    image = series() if change is None else change(series())
    assert "instance_number" not in SliceBagd("image", plane=plane)({"image": image})
    scan_without = scan((5, 4, 3), np.eye(4))
    assert "instance_number" not in SliceBagd("image")({"image": scan_without})


@pytest.mark.parametrize("other", [scan((5, 4, 2), np.eye(4)), scan((5, 4, 3), np.diag([1.0, 1, 1.2, 1]))])
def test_slice_bagd_refuses_keys_of_different_geometry(other):
    image = scan((5, 4, 3), np.eye(4))
    with pytest.raises(ValueError, match=r"`keys` must share one geometry, got 'image' of shape \[5, 4, 3\] .*'label'"):
        SliceBagd(["image", "label"])({"image": image, "label": other})
    near = np.eye(4)
    near[:3, 3] = 0.01
    SliceBagd(["image", "label"])({"image": image, "label": scan((5, 4, 3), near)})


@pytest.mark.parametrize(
    ("image", "match"),
    [
        (torch.zeros(1, 5, 4, 3), "`image` must be a MetaTensor, whose affine says where its slices are, got Tensor"),
        (MetaTensor(torch.zeros(1, 5, 4)), r"a scan of shape \(C, X, Y, Z\), got \(1, 5, 4\)"),
        (MetaTensor(torch.zeros(1, 5, 4, 3, 2)), r"a scan of shape \(C, X, Y, Z\), got \(1, 5, 4, 3, 2\)"),
        (MetaTensor(torch.zeros(1, 5, 4, 0)), r"a scan of shape \(C, X, Y, Z\), got \(1, 5, 4, 0\)"),
        (scan((5, 4, 3), np.diag([1.0, 0, 1, 1])), r"an invertible affine \(4, 4\), got"),
        (scan((5, 4, 3), np.diag([1.0, np.nan, 1, 1])), r"an invertible affine \(4, 4\), got"),
        (MetaTensor(torch.zeros(1, 5, 4, 3), meta={"space": "LPS"}), "an affine in RAS mm, got one in LPS"),
    ],
)
def test_slice_bag_names_invalid_images(image, match):
    with pytest.raises(ValueError, match=match):
        SliceBag()(image)


def test_slice_bag_names_invalid_arguments():
    with pytest.raises(ValueError, match=r"`plane` must be one of 'axial', .* did you mean 'axial'\?"):
        SliceBag("axia")
    with pytest.raises(ValueError, match="`mode` must be one of 'bilinear', 'nearest', got 'cubic'"):
        SliceBag(mode="cubic")
    with pytest.raises(ValueError, match="`spatial_size` must be a positive integer, got 0"):
        SliceBagd("image", spatial_size=0)


def test_slice_bag_is_valid_where_one_of_its_channels_varies():
    image = torch.zeros(2, 3, 3, 3)
    image[0, 0, 0, 0] = image[1, 1, 1, 1] = 1.0
    bag = SliceBag()(MetaTensor(image, affine=np.eye(4)))
    assert bag.validity.tolist() == [True, True, False]


def test_slice_bag_inverse_gives_each_slice_of_the_scan_its_score():
    bag = SliceBag()(scan((5, 4, 3), np.eye(4))).bag
    scores = MetaTensor(torch.tensor([1.0, 2.0, 3.0]), applied_operations=bag.applied_operations)
    volume = SliceBag().inverse(scores).as_tensor()
    assert torch.equal(volume, torch.tensor([1.0, 2.0, 3.0]).expand(1, 5, 4, 3))
