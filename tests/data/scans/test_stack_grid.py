"""Tests of the slices of irregular series: at their own positions, and on a regular grid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_mil_ext.data.scans.slice_stack import slice_affines
from monai_mil_ext.data.scans.stack_grid import VolumeSlices, fill_grid, place_stack
from tests.stacks import ORIENTATIONS, STEPS, stack_of

SLOPE = np.array([3.0, -2, 5])
ORIENTATION = st.sampled_from(list(ORIENTATIONS.values()))
SHIFT = st.tuples(st.floats(-1.5, 1.5), st.floats(-1.5, 1.5))


def points(affine, shape):
    """Return the RAS coordinates (*shape, 3) of all voxels."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return index @ affine[:3, :3].T + affine[:3, 3]


def directions_of(affine):
    """Return the directions (3, 3) of the axes of the voxel array, in columns."""
    return affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)


def phantom(stack):
    """Return the voxels (X, Y, Z) of a linear phantom, and the RAS coordinates (X, Y, Z, 3) of each."""
    rows, columns, _ = stack[0].size
    where = np.concatenate([points(affine, (columns, rows, 1)) for affine in slice_affines(stack)], axis=2)
    return (where @ SLOPE + 1000).astype(np.float32), where


@given(steps=STEPS, orientation=ORIENTATION, tilt=SHIFT)
def test_allowed_slices_have_the_positions_of_their_headers(steps, orientation, tilt):
    heights = np.cumsum([0, *steps])
    stack = stack_of(heights, orientation, np.outer(np.arange(len(heights)), tilt))
    array, where = phantom(stack)
    read, affine, meta = place_stack(array, stack, "allow")
    assert read is array
    if "slice_position" not in meta:  # regular by chance
        np.testing.assert_allclose(points(affine, array.shape), where, atol=1)
        return
    np.testing.assert_allclose(meta["slice_position"], where[0, 0], atol=1e-9)
    np.testing.assert_array_equal(meta["slice_thickness"], np.full(len(heights), 2.0))
    assert meta["notes"][0].startswith("The slices are no regular stack (")


@settings(max_examples=60)
@given(steps=STEPS, orientation=ORIENTATION, tilt=SHIFT)
def test_a_linear_phantom_is_the_same_after_it_is_resampled(steps, orientation, tilt):
    heights = np.cumsum([0, *steps])
    stack = stack_of(heights, orientation, np.outer(np.arange(len(heights)), tilt))
    array, _ = phantom(stack)
    grid, affine, meta = place_stack(array, stack, "resample")
    if not meta:
        assert grid is array
        return
    where = points(affine, grid.shape)
    inside = grid != array.min()
    assert inside.sum() > array.size / 8
    # the first and the last plane may lie outside of the slices by a twentieth of a step, and are those slices then
    height = (where[0, 0] - stack[0].position * [-1, -1, 1]) @ directions_of(affine)[:, 2]
    inside &= (height >= -1e-9) & (height <= heights[-1] + 1e-9)
    np.testing.assert_allclose(grid[inside], (where @ SLOPE + 1000)[inside], rtol=1e-4, atol=1e-2)
    directions = directions_of(affine)
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-9)  # a grid without shear
    assert np.linalg.norm(affine[:3, 2]) == pytest.approx(np.sort(steps)[(len(steps) - 1) // 2])
    assert "were resampled" in meta["notes"][0]
    assert "slice_position" not in meta


def test_resampling_leaves_slices_that_fit_and_marks_a_gap():
    stack = stack_of([0, 5, 10, 20, 25], thickness=5.0)
    array, _ = phantom(stack)
    grid, affine, _ = place_stack(array, stack, "resample")
    np.testing.assert_array_equal(grid[..., [0, 1, 2, 4, 5]], array)
    np.testing.assert_array_equal(grid[..., 3], np.full((6, 5), array.min()))
    np.testing.assert_allclose(affine[:3, 3], stack[0].position * [-1, -1, 1])


def test_resampling_undoes_a_tilt_and_fills_the_corners():
    stack = stack_of(np.arange(4) * 2.5, shift=np.arange(4) * 0.9)  # one pixel from slice to slice
    array, _ = phantom(stack)
    grid, affine, _ = place_stack(array, stack, "resample")
    assert grid.shape == (9, 5, 4)
    for k in range(4):
        np.testing.assert_allclose(grid[k : k + 6, :, k], array[..., k], rtol=1e-6)
        assert (np.delete(grid[..., k], np.arange(k, k + 6), axis=0) == array.min()).all()
    np.testing.assert_allclose(affine[:3, :3], np.diag([-0.9, -0.7, 2.5]))


def test_thick_slices_leave_no_gap():
    stack = stack_of([0, 5, 10, 20, 25], thickness=10.0)
    array, _ = phantom(stack)
    grid, _, _ = place_stack(array, stack, "resample")
    np.testing.assert_allclose(grid[..., 3], (array[..., 2] + array[..., 3]) / 2, rtol=1e-6)


@pytest.mark.parametrize("irregular", ["allow", "resample"])
def test_a_regular_series_is_read_as_ever(irregular):
    stack = stack_of(np.round(np.arange(6) * 0.625, 1))
    array, where = phantom(stack)
    read, affine, meta = place_stack(array, stack, irregular)
    assert read is array
    assert meta == {}
    np.testing.assert_allclose(points(affine, array.shape), where, atol=0.06)


def slices_of(stack, order=(0, 1, 2), flips=(False, False, False), crop=slice(None)):
    """Return array, affine and slices of an allowed series whose voxel array was permuted, flipped and cropped."""
    array, where = phantom(stack)
    _, loaded, meta = place_stack(array, stack, "allow")
    to_old = np.zeros((4, 4))
    to_old[3, 3] = 1
    array, where = array[1:, :, crop], where[1:, :, crop]
    start = [1, 0, crop.start or 0]
    for new, (old, flip) in enumerate(zip(order, flips, strict=True)):
        to_old[old, new] = -1 if flip else 1
        to_old[old, 3] = start[old] + (array.shape[old] - 1 if flip else 0)
    flipped = [i for i, flip in enumerate(flips) if flip]
    array, where = np.flip(array.transpose(order), flipped), np.flip(where.transpose(*order, 3), flipped)
    affine = loaded @ to_old
    return array, affine, VolumeSlices.of({**meta, "original_affine": loaded}, affine, array.shape), where


@given(
    order=st.permutations(range(3)),
    flips=st.tuples(*[st.booleans()] * 3),
    orientation=ORIENTATION,
    crop=st.sampled_from([slice(None), slice(1, 5)]),
)
def test_slices_follow_flips_permutations_and_crops(order, flips, orientation, crop):
    stack = stack_of([0, 5, 10, 20, 25, 27.5], orientation, 0.45 * np.arange(6))
    _, _, slices, where = slices_of(stack, order, flips, crop)
    assert slices.axis == order.index(2)
    first = np.moveaxis(where, slices.axis, 0)[:, 0, 0]
    np.testing.assert_allclose(slices.position, first, atol=1e-9)


@given(steps=STEPS, order=st.permutations(range(3)), flips=st.tuples(*[st.booleans()] * 3), orientation=ORIENTATION)
def test_every_voxel_of_a_slice_is_on_the_grid_at_its_own_position(steps, order, flips, orientation):
    heights = np.cumsum([0, *steps])
    stack = stack_of(heights, orientation, 0.9 * np.arange(len(heights)))  # tilted by whole pixels
    array, affine, slices, where = slices_of(stack, order, flips)
    if slices is None:
        return
    grid, matrix = fill_grid(array, affine, slices)
    index = np.rint((where - matrix[:3, 3]) @ np.linalg.inv(matrix[:3, :3]).T).astype(int)
    np.testing.assert_array_equal(grid[tuple(np.moveaxis(index, -1, 0))], array)
    steps_of_grid = np.linalg.norm(matrix[:3, :3], axis=0)
    off = (where - matrix[:3, 3]) @ np.linalg.inv(matrix[:3, :3]).T - index
    assert abs(off * steps_of_grid).max() <= 0.25 * min(steps) + 1e-6  # so that each has a voxel of its own
    values = set(array.ravel()) | {np.nan}
    assert set(grid[np.isfinite(grid)]) <= values


def test_gaps_of_the_grid_are_nan():
    stack = stack_of([0, 5, 10, 20, 25], thickness=5.0)
    array, affine, slices, _ = slices_of(stack)
    grid, matrix = fill_grid(array, affine, slices)
    assert grid.shape == (5, 5, 6)
    np.testing.assert_array_equal(grid[..., [0, 1, 2, 4, 5]], array)
    assert np.isnan(grid[..., 3]).all()
    np.testing.assert_allclose(matrix[:3, 2], [0, 0, 5])


def test_slices_that_were_resampled_across_are_refused():
    stack = stack_of([0, 5, 10, 20, 25])
    array, _ = phantom(stack)
    _, loaded, meta = place_stack(array, stack, "allow")
    meta["original_affine"] = loaded
    for change, shape in ((np.diag([1, 1, 0.5, 1]), (6, 5, 9)), (np.eye(4), (6, 5, 6))):
        with pytest.raises(
            ValueError, match=r"must keep the slices of an irregular series .* `irregular` can be resample"
        ):
            VolumeSlices.of(meta, loaded @ change, shape)
