"""Tests of pixels of a fixed size in SliceBag: points and masks stay where they are, in every orientation."""

import json

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Compose

from monai_mil_ext.data import InstanceSource
from monai_mil_ext.transforms import SliceBag, SliceBagd, SliceScoresToVolumed, scan_source
from monai_mil_ext.transforms.scans.slice_order import SliceOrder
from tests.transforms.geometry import ORDERS, PLANES, affines, reordered, scan

SHAPE = (24, 20, 16)


def coordinates(affine):
    """Return a scan whose three channels are the RAS coordinates of its voxels."""
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"))
    points = np.einsum("ij,jxyz->ixyz", affine[:3, :3], index) + affine[:3, 3].reshape(3, 1, 1, 1)
    return MetaTensor(torch.as_tensor(points), affine=torch.as_tensor(affine))


def expected_points(image, plane, pixel_mm, size):
    """Return the points (S, 3, h, w) of the pixels of all slices, in mm, and which of them are inside of the scan."""
    order = SliceOrder.of(image.affine, plane)
    centers = order.apply(image.as_tensor())  # (3, S, h, w)
    height, width = centers.shape[2:]
    steps = [centers[:, :, 1, 0] - centers[:, :, 0, 0], centers[:, :, 0, 1] - centers[:, :, 0, 0]]
    lengths = [float(step[:, 0].norm()) for step in steps]
    middle = centers.mean(dim=(2, 3))
    offsets = [(torch.arange(float(n), dtype=torch.float64) - (n - 1) / 2) * pixel_mm for n in size]
    points = middle[:, :, None, None]
    inside = torch.ones(size, dtype=torch.bool)
    for axis, (step, mm, n) in enumerate(zip(steps, lengths, (height, width), strict=True)):
        along = offsets[axis].view(-1, 1) if axis == 0 else offsets[axis].view(1, -1)
        points = points + (step / mm)[:, :, None, None] * along
        inside &= along.abs() <= (n - 1) / 2 * mm - 2 * max(mm, pixel_mm)  # the filter reaches over its neighbors
    return points.transpose(0, 1), inside


@given(
    affine=affines(),
    plane=st.sampled_from(PLANES),
    pixel_mm=st.sampled_from([0.5, 0.9, 1.0, 2.0]),
    size=st.sampled_from([None, 8, 13]),
)
def test_points_stay_where_they_are_to_a_pixel(affine, plane, pixel_mm, size):
    image = coordinates(affine)
    bag = SliceBag(plane, size, pixel_mm=pixel_mm)(image).bag.as_tensor().double()
    if size is not None:
        assert bag.shape[-2:] == (size, size)
    points, inside = expected_points(image, plane, pixel_mm, bag.shape[-2:])
    assume(inside.any())
    distance = (bag - points).norm(dim=1)[:, inside]
    assert float(distance.max()) < pixel_mm


@given(affine=affines(), order=st.sampled_from(ORDERS), plane=st.sampled_from(PLANES), size=st.sampled_from([None, 9]))
def test_pixels_do_not_depend_on_the_order_of_the_voxel_array(affine, order, plane, size):
    original = scan(SHAPE, affine)
    bags = [SliceBag(plane, size, pixel_mm=1.2)(image).bag for image in (original, reordered(original, *order))]
    assert torch.equal(*bags)


def test_pixels_of_two_lengths_become_square():
    image = torch.zeros(1, 40, 20, 3)
    image[:, 10:30, 5:15] = 1  # 20 mm wide and 20 mm deep
    image = MetaTensor(image, affine=torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0])))
    assert tuple(SliceBag(pixel_mm=1.0)(image).bag.shape) == (3, 1, 40, 40)
    for size, mm in ((40, 1.0), (20, 2.0), (48, 1.0)):
        bag = SliceBag(spatial_size=size, pixel_mm=mm)(image).bag[0, 0] > 0.5
        rows, columns = bag.any(dim=1), bag.any(dim=0)
        assert (int(rows.sum()), int(columns.sum())) == (20 / mm, 20 / mm)
        assert torch.equal(rows, rows.flip(0))
        assert torch.equal(columns, columns.flip(0))


def test_a_larger_scan_is_cropped_and_a_smaller_one_padded():
    affine = torch.diag(torch.tensor([1.0, 1.0, 3.0, 1.0]))
    image = torch.arange(100.0).view(1, 10, 10, 1) + 5
    bag = SliceBag(spatial_size=4, pixel_mm=1.0)(MetaTensor(image, affine=affine)).bag
    assert torch.equal(bag, SliceBag()(MetaTensor(image, affine=affine)).bag[..., 3:7, 3:7])
    bag = SliceBag(spatial_size=14, pixel_mm=1.0)(MetaTensor(image, affine=affine)).bag
    assert torch.equal(bag[..., 2:12, 2:12], SliceBag()(MetaTensor(image, affine=affine)).bag)
    assert bag[..., :2, :].unique().tolist() == [5.0]


@given(affine=affines(), plane=st.sampled_from(PLANES))
def test_a_mask_and_scores_meet_the_scan(affine, plane):
    """The mask has the pixels of the scan, and scores return to its voxels, which are not resampled."""
    image = MetaTensor(torch.zeros(1, *SHAPE), affine=torch.as_tensor(affine))
    image[:, 10:15, 8:13, 6:11] = 1
    item = SliceBagd(["image", "reference"], plane, 32, ("bilinear", "nearest"), pixel_mm=1.0)(
        {"image": image, "reference": image.clone()}
    )
    found, mask = (torch.nonzero(item[key].as_tensor()[:, 0] > 0.5).double() for key in ("image", "reference"))
    assert float((found.mean(dim=0) - mask.mean(dim=0)).abs().max()) < 1
    item["attention"] = item["reference"].as_tensor().flatten(1).amax(dim=1)
    volume = SliceScoresToVolumed("attention")(item)["attention"]
    assert torch.equal(volume.affine, image.affine)
    assert bool((volume.as_tensor()[image.as_tensor() > 0] == 1).all())
    assert int((volume > 0).sum()) == int(volume.numel() * 5 / SHAPE[SliceOrder.of(image.affine, plane).axes[0]])


def test_the_source_states_the_pixels():
    sources = [scan_source(Compose([SliceBagd("image", spatial_size=8, pixel_mm=mm)])) for mm in (None, 1, 1.0, 2)]
    plain, one, same, two = (InstanceSource.from_values(json.loads(json.dumps(s.to_values()))) for s in sources)
    assert (plain.pixel_mm, one.pixel_mm) == ((), (1.0,))
    assert one == same
    assert not one.compare(same)
    assert one.compare(two).message() == "trained on pixels of 1 mm, got pixels of 2 mm"
    assert plain.compare(two).message() == "trained on pixels of their own size, got pixels of 2 mm"


@pytest.mark.parametrize("pixel_mm", [0, -1, float("nan"), float("inf"), "1", True])
def test_other_sizes_of_pixels_are_refused(pixel_mm):
    with pytest.raises(ValueError, match="`pixel_mm` must be positive and finite"):
        SliceBag(pixel_mm=pixel_mm)
