"""Tests of what pictures show beside the slices of a scan."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_mil_ext.transforms import SliceSelection
from monai_mil_ext.visualize import SliceDisplay
from tests.visualize.attention_scan import ORIENTATIONS, phantom, slices_of

SIDES = {"axial": ("R", "L", "A", "P"), "coronal": ("R", "L", "S", "I"), "sagittal": ("A", "P", "S", "I")}


@pytest.mark.parametrize("plane", SIDES)
@pytest.mark.parametrize("spatial_size", [None, 24])
def test_slice_display_letters_are_right_in_every_orientation(plane, spatial_size):
    for orientation in ORIENTATIONS:
        item = slices_of(phantom(*orientation), plane, spatial_size)
        images = item["image"][:, 0].numpy()
        display = SliceDisplay.of(item, images.shape[1:])
        shown = display.crop(images)
        left, right, top, bottom = display.sides
        assert display.sides == SIDES[plane]
        _, rows, columns = np.nonzero(shown > 0.5 * shown.max())
        # the bright corner is at the right, front and top of the patient
        assert (columns.mean() < shown.shape[2] / 2) == (left in "RAS")
        assert (rows.mean() < shown.shape[1] / 2) == (top in "RAS")
        assert {left + right, top + bottom} <= {"RL", "AP", "SI"}


@pytest.mark.parametrize("plane", SIDES)
@pytest.mark.parametrize("spatial_size", [None, 16, 56])
def test_slice_display_knows_the_size_of_a_slice_in_mm(plane, spatial_size):
    expected = {"axial": (42, 84), "coronal": (126, 84), "sagittal": (126, 42)}[plane]
    for orientation in ORIENTATIONS[::5]:
        scan = phantom(*orientation, spacing=(3.0, 2.0, 7.0))
        item = slices_of(scan, plane, spatial_size)
        display = SliceDisplay.of(item, item["image"].shape[2:])
        height, width = display.crop(item["image"][:, 0].numpy()).shape[1:]
        tolerance = 0.001 if spatial_size is None else max(display.pixel_mm)  # of a field that ends within a pixel
        assert height * display.pixel_mm[0] == pytest.approx(expected[0], abs=tolerance)
        assert width * display.pixel_mm[1] == pytest.approx(expected[1], abs=tolerance)


def test_slice_display_counts_from_one_in_the_scan():
    scan = MetaTensor(torch.rand(1, 4, 4, 30))
    item = slices_of(scan, selection=SliceSelection(start_mm=20, stride=2))
    display = SliceDisplay.of(item, (4, 4))
    assert display.name(0) == "slice 21 of 30"
    assert display.name(4) == "slice 29 of 30"
    assert SliceDisplay().name(0) == "slice 1"
    assert SliceDisplay().name(0, count=9) == "slice 1 of 9"
    assert SliceDisplay(slice_index=[4]).name(0, count=9) == "slice 5"  # of a scan of unknown length


@pytest.mark.parametrize(("position", "text"), [(47.04, "47.0 mm"), (-0.04, "0.0 mm"), (-1234.56, "-1234.6 mm")])
def test_slice_display_names_the_place(position, text):
    assert SliceDisplay().place(0, position) == text
    assert SliceDisplay(instance_number=[37]).place(0, position) == f"{text}, InstanceNumber 37"


def test_slice_display_drops_padding_of_numbers():
    item = {"slice_index": torch.tensor([3, 4, 0]), "mask": torch.tensor([True, True, False]), "plane": "coronal"}
    display = SliceDisplay.of(item | {"instance_number": torch.tensor([9, 8, 0])}, (5, 5))
    assert (display.slice_index.tolist(), display.instance_number.tolist()) == ([3, 4], [9, 8])
    assert (display.pixel_mm, display.num_slices, display.plane) == (None, None, "coronal")


def test_slice_display_takes_the_pixel_of_a_resampled_bag():
    item = slices_of(phantom((0, 1, 2), (False,) * 3), spatial_size=20)
    assert SliceDisplay.of(item | {"pixel_mm": torch.tensor([0.5, 0.75])}, (20, 20)).pixel_mm == (0.5, 0.75)
    assert SliceDisplay.of(item | {"pixel_mm": 0.5}, (20, 20)).pixel_mm == (0.5, 0.5)
    assert SliceDisplay.of(item, (20, 13)).pixel_mm is None  # cropped by a transform that does not say how


def test_slice_display_scales_values_that_are_no_gray_values():
    normalized = np.linspace(-3, 5, 801).reshape(9, 89, 1)
    shown, display = SliceDisplay(window="normalization z").fit_gray(normalized)
    assert display.window == "normalization z, shown from -2.96 to 4.96"
    assert (shown.min(), shown.max()) == (0, 1)
    np.testing.assert_allclose(shown.ravel()[[400]], (1 + 2.96) / 7.92, atol=1e-3)
    assert SliceDisplay().fit_gray(normalized)[1].window == "shown from -2.96 to 4.96"
    flat, _ = SliceDisplay().fit_gray(np.full((2, 3, 3), 7.0))
    assert (flat == 0).all()


@pytest.mark.parametrize("low", [0.0, 0.3, -1e-4])
def test_slice_display_keeps_gray_values(low):
    images = np.linspace(low, 1, 90, dtype=np.float32).reshape(10, 3, 3)
    display = SliceDisplay(window="window 0 to 1")
    shown, same = display.fit_gray(images)
    np.testing.assert_array_equal(shown, images)
    assert same is display


def test_slice_display_refuses_invalid_arguments():
    with pytest.raises(ValueError, match="`plane` must be one of"):
        SliceDisplay("oblique")
    with pytest.raises(ValueError, match="`pixel_mm` must be a positive height and width, got"):
        SliceDisplay("axial", (1.0, 0.0))
