"""Tests of SliceSelection: range, stride, neighbors and foreground; validity of slices."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from torch.testing import assert_close

from monai_mil_ext.transforms import SliceBag, SliceBagd, SliceScoresToVolumed, SliceSelection
from tests.transforms.geometry import ORDERS, PLANES, SELECTIONS, affines, reordered, scan


@given(affine=affines(), order=st.sampled_from(ORDERS), plane=st.sampled_from(PLANES), selection=SELECTIONS)
def test_slice_selection_does_not_depend_on_the_order_of_the_voxel_array(affine, order, plane, selection):
    original = scan((5, 4, 3), affine)
    other = reordered(original, *order)
    expected, got = (SliceBag(plane, selection=selection)(s) for s in (original, other))
    for name in ("bag", "slice_index", "validity"):
        assert torch.equal(getattr(got, name), getattr(expected, name))
    assert_close(got.position, expected.position, atol=1e-3, rtol=0)


@given(plane=st.sampled_from(PLANES), selection=SELECTIONS, size=st.sampled_from([None, 7]))
def test_slice_selection_returns_rows_of_the_whole_bag(plane, selection, size):
    volume = torch.cat([scan((5, 4, 6), np.eye(4)), -scan((5, 4, 6), np.eye(4))])
    whole, part = SliceBag(plane, size)(volume), SliceBag(plane, size, selection=selection)(volume)
    k, last = selection.num_neighbors, len(whole.bag) - 1
    for name in ("position", "validity", "slice_index"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[part.slice_index])
    for picture, index in zip(part.bag, part.slice_index.tolist(), strict=True):
        beside = [min(max(index + step, 0), last) for step in range(-k, k + 1)]
        expected = torch.cat([whole.bag[beside, channel] for channel in (0, 1)])
        assert_close(picture, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, range(20)),
        ({"start_mm": 20}, range(4, 20)),
        ({"stop_mm": 20}, range(5)),
        ({"start_mm": -20}, range(15, 20)),
        ({"stop_mm": -20}, range(16)),
        ({"start_mm": 0, "stop_mm": -95}, [0]),
        ({"start_mm": 12, "stop_mm": 24}, [3, 4]),
        ({"start_mm": -500, "stop_mm": 500, "stride": 9}, [0, 9, 18]),
        ({"start_mm": 10, "stop_mm": -10, "stride": 5}, [2, 7, 12, 17]),
        ({"stride": 100}, [0]),
    ],
)
def test_slice_selection_range_is_in_mm_from_the_ends(options, expected):
    """20 slices of 5 mm; both ends belong to the range, independent of the position of the table."""
    for lowest in (-931.7, 0.1):
        affine = torch.diag(torch.tensor([1.0, 1, 5, 1], dtype=torch.float64))
        affine[2, 3] = lowest
        slices = SliceBag(selection=SliceSelection(**options))(MetaTensor(torch.rand(1, 3, 3, 20), affine=affine))
        assert slices.slice_index.tolist() == list(expected)
        assert_close(slices.position, lowest + 5.0 * slices.slice_index, atol=1e-3, rtol=0)


def test_slice_selection_names_a_range_without_slices():
    match = r"must leave a slice of the scan, got 1 to 2 for 3 slices over 10 mm"
    with pytest.raises(ValueError, match=match):
        SliceBag(selection=SliceSelection(1, 2))(scan((3, 3, 3), np.diag([1.0, 1, 5, 1])))


def test_slice_selection_foreground_keeps_at_least_one_slice():
    volume = torch.full((1, 10, 10, 6), -1000.0)
    volume[0, :, :, 1] = 40  # all of it
    volume[0, 0, :3, 3] = 40  # 3 %
    volume[0, 0, 0, 4] = 40  # 1 %, a hot pixel

    def chosen(**options):
        return SliceBag(selection=SliceSelection(**options))(MetaTensor(volume)).slice_index.tolist()

    assert chosen(foreground=-500) == [1, 3, 4]
    assert chosen(foreground=lambda x: x > -500) == [1, 3, 4]
    assert chosen(foreground=-500, min_foreground=0.02) == [1, 3]
    assert chosen(foreground=-500, min_foreground=0.03) == [1]
    assert chosen(foreground=-500, start_mm=2) == [3, 4]
    assert chosen(foreground=-500, start_mm=3, stride=2) == [3]  # the stride comes first
    assert chosen(foreground=-500, start_mm=2, min_foreground=0.5) == [3]  # the most there is
    assert chosen(foreground=3000) == [0]


def test_slice_bagd_selects_by_the_first_key():
    affine = np.diag([1.0, 1, 2, 1])
    image = scan((5, 4, 6), affine)
    mask = reordered(scan((5, 4, 6), affine) * 0, (2, 1, 0), (True, False, False))
    selection = SliceSelection(foreground=116.5)  # the last voxels of the array: only slices 3, 4, 5 have any
    out = SliceBagd(["image", "mask"], mode=("bilinear", "nearest"), selection=selection)(
        {"image": image, "mask": mask}
    )
    assert out["slice_index"].tolist() == [3, 4, 5]
    assert out["image"].shape == out["mask"].shape == (3, 1, 4, 5)
    assert out["position"].tolist() == [6, 8, 10]


def test_slice_selection_leaves_zeros_in_the_inverse():
    image = scan((5, 4, 7), np.diag([1.0, 1, -2, 1]))
    item = SliceBagd("image", selection=SliceSelection(start_mm=2, stride=3))({"image": image})
    item["scores"] = torch.tensor([1.0, 2.0])
    assert item["slice_index"].tolist() == [1, 4]
    assert SliceScoresToVolumed("scores")(item)["scores"][0, 0, 0].tolist() == [0, 0, 2, 0, 0, 1, 0]


def test_slice_bag_validity_is_false_for_constant_slices():
    volume = torch.rand(2, 4, 4, 6)
    volume[..., 0] = 3.0  # padding
    volume[0, ..., 1] = 0.0  # something in the other channel
    volume[1, 2, 2, 2] = torch.nan
    volume[1, 2, 2, 3] = torch.inf
    slices = SliceBag()(MetaTensor(volume))
    assert slices.validity.tolist() == [False, True, False, False, True, True]
    assert slices.validity.dtype == torch.bool
    beside = SliceBag(selection=SliceSelection(num_neighbors=1, stride=5))(MetaTensor(volume)).validity
    assert beside.tolist() == [False, True]  # neighbors do not count


def test_slice_selection_in_a_config():
    bag = {
        "_target_": "monai_mil_ext.transforms.SliceBagd",
        "keys": "image",
        "selection": {
            "_target_": "monai_mil_ext.transforms.SliceSelection",
            "start_mm": -160,
            "stride": 2,
            "foreground": -500,
        },
    }
    transform = ConfigParser({"bag": bag}).get_parsed_content("bag")
    assert transform.slicers[0].selection == SliceSelection(start_mm=-160, stride=2, foreground=-500)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"stride": 0}, "`stride` must be a positive integer, got 0"),
        ({"num_neighbors": -1}, "`num_neighbors` must be an integer from 0, got -1"),
        ({"num_neighbors": 1.0}, "`num_neighbors` must be an integer from 0, got 1.0"),
        ({"start_mm": float("nan")}, "`start_mm` must be finite, got nan"),
        ({"stop_mm": float("inf")}, "`stop_mm` must be finite, got inf"),
        ({"foreground": float("nan")}, "`foreground` must be finite, got nan"),
        ({"min_foreground": 1.0}, r"`min_foreground` must be in \[0, 1\), got 1.0"),
    ],
)
def test_slice_selection_names_invalid_arguments(options, match):
    with pytest.raises(ValueError, match=match):
        SliceSelection(**options)
