"""Tests of the views of a stack of slices."""

import numpy as np
import pytest

from monai_mil_ext.visualize import SliceDisplay
from monai_mil_ext.visualize.stack_views import slice_edges, slice_spans, stack_views
from tests.visualize.attention_scan import ORIENTATIONS, SIZE_MM, phantom, scan, slices_of

VIEWS = {
    "axial": [("front view", ("R", "L", "S", "I"), True), ("side view", ("A", "P", "S", "I"), True)],
    "coronal": [("axial view", ("R", "L", "A", "P"), True), ("side view", ("A", "P", "S", "I"), False)],
    "sagittal": [("axial view", ("R", "L", "A", "P"), False), ("front view", ("R", "L", "S", "I"), False)],
}


@pytest.mark.parametrize("plane", VIEWS)
def test_stack_views_are_radiological_and_true_in_every_orientation(plane):
    for orientation in ORIENTATIONS:
        item = slices_of(phantom(*orientation), plane)
        images, position = item["image"][:, 0].numpy(), item["position"].numpy()
        bright = images.copy()
        bright[:] = images.max(axis=(1, 2), keepdims=True)  # else the views would cut beside the corner
        display = SliceDisplay.of(item, images.shape[1:])
        for view, (name, sides, is_upright) in zip(stack_views(images, position, display), VIEWS[plane], strict=True):
            assert (view.name, view.sides, view.is_upright) == (name, sides, is_upright)
            mm = [SIZE_MM[next(side for side in pair if side in SIZE_MM)] for pair in (sides[:2], sides[2:])]
            assert view.size == pytest.approx(mm, abs=1e-4)
        for view in stack_views(bright, position, display):
            rows, columns = np.nonzero(view.image > 0.5)
            if view.is_upright:  # the bright slices are at the right, front or top of the patient
                assert view.sides[2] in "RAS"
                assert rows.max() < view.image.shape[0] / 2
                assert view.extent[2] < view.extent[3]
            else:
                assert view.sides[0] in "RAS"
                assert columns.max() < view.image.shape[1] / 2
                assert view.extent[0] > view.extent[1]


def test_stack_views_show_thick_slices_thick_and_gaps_as_gaps():
    slices = np.full((4, 6, 6), 0.5)
    slices[1] = 1
    display = SliceDisplay("axial", (1.0, 1.0))
    for view in stack_views(slices, np.array([0.0, 5.0, 10.0, 30.0]), display):
        assert view.extent == (0, 6, -2.5, 32.5)
        column = view.image[:, 3]
        assert len(column) == 35
        assert (column == 1).sum() == 5
        np.testing.assert_array_equal(np.isnan(column), [*[False] * 6, *[True] * 13, *[False] * 16])


def test_stack_views_draw_the_positions_of_an_irregular_stack():
    position = np.array([0.0, 1.0, 2.0, 4.0, 6.0])
    slices = np.broadcast_to(np.arange(5.0)[:, None, None] / 4, (5, 8, 8))
    view, _ = stack_views(slices, position, SliceDisplay("axial", (0.5, 0.5)))
    bottom, top = view.extent[2:]
    heights = top - (np.arange(len(view.image)) + 0.5) * (top - bottom) / len(view.image)
    for i, mm in enumerate(position):
        assert view.image[np.abs(heights - mm).argmin(), 0] == pytest.approx(i / 4)


def test_stack_views_cut_the_reference():
    _, position, slices, reference = scan()
    slices = np.zeros_like(slices)
    slices[:, 6, :] = 1  # the middle row of the masks
    front, side = stack_views(slices, position, SliceDisplay("axial", (1.0, 2.0)), reference)
    assert (front.image == 1).all()
    assert front.outline.any()
    assert side.outline.shape == side.image.shape
    assert front.size == (32, 45)
    assert side.size == (16, 45)


def test_stack_views_say_that_they_are_not_to_scale():
    _, position, slices, _ = scan()
    for view in stack_views(slices, position, SliceDisplay()):
        assert view.name.endswith("view, not to scale")
        assert not view.is_to_scale
        assert view.sides == ("", "", "", "")
    assert [view.name for view in stack_views(slices, position, SliceDisplay("sagittal"))] == [
        "axial view, not to scale",
        "front view, not to scale",
    ]


def test_slice_spans_of_few_slices():
    assert slice_spans(np.array([3.0])).tolist() == [[2.5, 3.5]]
    assert slice_spans(np.array([0.0, 4.0])).tolist() == [[-2, 2], [2, 6]]
    edges, index = slice_edges(np.array([0.0, 2.0, 4.0, 10.0]))
    assert edges.tolist() == [-1, 1, 3, 5.5, 8.5, 11]
    assert index.tolist() == [0, 1, 2, -1, 3]


def test_stack_views_take_masks_of_any_type():
    slices = np.random.default_rng(0).random((4, 6, 5))
    mask = np.zeros((4, 6, 5), np.float32)
    mask[1, 2, 3] = 1
    display = SliceDisplay(pixel_mm=(1.0, 1.0))
    first, second = (stack_views(slices, np.arange(4.0), display, m) for m in (mask, mask > 0))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.outline, other.outline)
        assert one.outline.any()
