"""Tests of the geometry of the slices of a series: which stacks are regular, and what others have instead."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_mil_ext.data import find_series
from monai_mil_ext.data.scans.slice_stack import StackGeometry, series_affine, sort_stack
from monai_mil_ext.utils import InputError
from tests.scans import write_series

LENGTHS = [3, 4, 5, 8, 20, 100, 800]
# a public oblique MR series of 20 slices: the scanner's steps vary by a percent
REAL_STEPS = [6.958, 7.071, 6.972, 6.971, 7.068, 6.96, 6.972, 7.07, 6.959, 6.972, 7.066, 6.971, 6.972, 6.96]


def geometry(heights, shift=0.0, pixel=0.7):
    """Return the geometry of axial slices at ``heights``, shifted along their rows by ``shift`` (Z,)."""
    heights = np.asarray(heights, dtype=float)
    return StackGeometry(np.stack([0 * heights + shift, 0 * heights, heights], axis=1), np.array([0, 0, 1.0]), pixel)


def stack(heights, orientation=(1, 0, 0, 0, 1, 0), shift=0.0):
    """Return slices as their headers describe them, in the given order."""
    row, column = np.reshape(orientation, (2, 3)).astype(float)
    normal = np.cross(row, column)
    shifts = np.broadcast_to(shift, len(heights))
    return [
        SimpleNamespace(
            orientation=np.array(orientation, dtype=float),
            position=np.array([3.0, -7, 11]) + height * normal + by * row,
            spacing=np.array([0.7, 0.9]),
            thickness=2.5,
            size=(5, 6, 1),
        )
        for height, by in zip(heights, shifts, strict=True)
    ]


@pytest.mark.parametrize("count", LENGTHS)
@pytest.mark.parametrize("step", [0.3, 0.45, 0.625, 1.25, 3.3333])
def test_positions_rounded_to_a_tenth_of_a_millimeter_are_regular(count, step):
    heights = np.arange(count) * step
    assert not geometry(np.round(heights, 1), np.round(0.03 * np.sin(heights), 1)).fault()


def test_steps_that_vary_by_a_percent_are_regular():
    assert not geometry(np.cumsum(REAL_STEPS)).fault()


@pytest.mark.parametrize("count", LENGTHS)
@pytest.mark.parametrize(("step", "rounding"), [(0.25, 6), (0.625, 6), (0.625, 1), (5.0, 1)])
def test_one_missing_slice_is_found_in_a_stack_of_any_length(count, step, rounding):
    heights = np.round(np.arange(count + 1) * step, rounding)
    places = range(1, count) if count < 100 else [1, 2, count // 3, count // 2, count - 2, count - 1]
    faults = [geometry(np.delete(heights, k)).fault() for k in places]
    assert all("1 slice seems missing" in fault for fault in faults)


@pytest.mark.parametrize("count", LENGTHS)
def test_a_slice_that_is_off_its_place_is_found(count):
    places = range(count) if count < 100 else [0, 1, count // 2, count - 1]
    for k in places:
        heights = np.arange(count) * 5.0
        heights[k] += 0.4 * 5
        assert "got" not in geometry(heights).fault()
        assert geometry(heights).fault()
        shift = np.zeros(count)
        shift[k] = 2.0
        assert "shifted by 2 mm" in geometry(np.arange(count) * 5.0, shift).fault()


@pytest.mark.parametrize(
    ("heights", "fault"),
    [
        ([0, 5, 10, 20, 25], "(1 slice seems missing, 5 mm)"),
        ([0, 5, 20, 25, 30, 40, 45], "(3 slices seem missing, 15 mm)"),
        ([0, 5.02, 10, 20.1, 25, 30], "(1 slice seems missing, 5.1 mm)"),
        ([0, 5, 10, 15, 18, 25], "a step of 3 mm between the slices at 15 and 18 mm where 5 mm is usual"),
        (np.arange(40) * 5 * 1.004 ** np.arange(40), "steps from 5.02 to 6.7"),
    ],
)
def test_a_fault_counts_missing_slices_and_millimeters(heights, fault):
    assert fault in geometry(heights).fault()
    assert "0 slices" not in geometry(heights).fault()


def test_a_fault_names_no_missing_slice_where_a_step_is_no_multiple_of_the_usual_one():
    fault = geometry([0, 2, 5, 7, 10, 12, 15, 17]).fault()
    assert fault == "a step of 3 mm between the slices at 2 and 5 mm where 2 mm is usual"


def test_a_tilt_is_found_however_small_its_step():
    heights = np.arange(60) * 0.625
    assert (
        "shifted by 17.7 mm in the plane of its slices (gantry tilt?)" in geometry(heights, 0.3 * np.arange(60)).fault()
    )
    assert "shifted by 1.77 mm" in geometry(heights, 0.03 * np.arange(60)).fault()
    assert not geometry(heights, 0.003 * np.arange(60)).fault()  # orientations are rounded, too


def test_a_gap_of_a_tilted_stack_is_named_with_the_tilt():
    text = geometry([0, 5, 10, 20, 25], [0, 1, 2, 4, 5]).fault()
    assert "1 slice seems missing, 5 mm), and a stack shifted by 5 mm" in text


@given(
    heights=st.lists(st.floats(0.5, 6), min_size=2, max_size=12).map(np.cumsum),
    seed=st.randoms(use_true_random=False),
    irregular=st.sampled_from(["allow", "resample"]),
)
def test_sort_stack_keeps_every_slice_of_an_irregular_series(heights, seed, irregular):
    order = list(range(len(heights)))
    seed.shuffle(order)
    slices = stack(heights[order], (0.8, 0.6, 0, 0, 0, -1))
    if np.diff(heights).min() < 0.1 * np.diff(heights).max():
        return
    sorted_heights = StackGeometry.of(sort_stack(slices, irregular)).heights
    np.testing.assert_allclose(np.diff(sorted_heights), np.diff(heights), atol=1e-9)


@pytest.mark.parametrize("irregular", ["refuse", "allow", "resample"])
@pytest.mark.parametrize("heights", [[0, 5, 5, 10], [0, 5, 10, 10.004, 15], [0, 0.1, 5, 5.1, 10, 10.1], [3, 3]])
def test_sort_stack_refuses_repeated_positions_whatever_is_allowed(heights, irregular):
    with pytest.raises(ValueError, match="`image` must have one slice per position, got two at") as error:
        sort_stack(stack(heights), irregular)
    assert not isinstance(error.value, InputError)


def test_sort_stack_names_the_option_and_the_facts_of_an_irregular_series():
    with pytest.raises(InputError, match=r"got a step of 10 mm .* `irregular` can be allow or resample") as error:
        sort_stack(stack([0, 5, 15, 20]))
    assert error.value.option == "--irregular allow"
    assert error.value.facts == {"shape": (6, 5, 4), "spacing": (0.9, 0.7, 5.0)}
    with pytest.raises(ValueError, match=r"`irregular` must be .*, got 'maybe'"):
        sort_stack(stack([0, 5, 15, 20]), "maybe")


def test_series_affine_of_a_regular_stack_leads_from_its_first_to_its_last_slice():
    slices = sort_stack(stack(np.round(np.arange(9) * 0.625, 1), (0.8, 0.6, 0, 0, 0, -1)))
    affine = series_affine(slices)
    for k in (0, 8):
        np.testing.assert_allclose(affine @ [0, 0, k, 1], [*(slices[k].position * [-1, -1, 1]), 1], atol=1e-9)


def test_series_affine_of_an_irregular_stack_is_the_line_through_all_slices():
    slices = sort_stack(stack([0, 5, 10, 20]), "allow")
    affine = series_affine(slices)
    # 6.5 k - 1 is the least-squares line through 0, 5, 10 and 20
    np.testing.assert_allclose(affine[:3, 2], [0, 0, 6.5], atol=1e-9)
    np.testing.assert_allclose(affine[:3, 3], [-3, 7, 10], atol=1e-9)


@pytest.mark.parametrize("tag", ["Rows", "PixelSpacing"])
@pytest.mark.parametrize("irregular", ["allow", "resample"])
def test_no_option_reads_a_series_of_several_grids(tmp_path, tag, irregular):
    from pydicom import dcmread

    write_series(tmp_path / "s")
    path = find_series(tmp_path / "s")[2].path
    ds = dcmread(path)
    setattr(ds, tag, {"Rows": 4, "PixelSpacing": [0.7, 0.8]}[tag])
    ds.save_as(path)
    with pytest.raises(ValueError, match=r"slices of the same .*, got a series that mixes them"):
        find_series(tmp_path / "s", irregular=irregular)
