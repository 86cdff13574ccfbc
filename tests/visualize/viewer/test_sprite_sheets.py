"""Tests of sheets of slices."""

import numpy as np
import pytest
from PIL import Image

from monai_mil_ext.visualize.viewer import write_sprite_sheets


def tile(folder, sheets, i):
    """Return slice i as a page cuts it from its sheet."""
    per = sheets.columns * sheets.rows
    y, x = i % per // sheets.columns * sheets.step_y, i % per % sheets.columns * sheets.step_x
    with Image.open(folder / sheets.files[i // per]) as sheet:
        return np.asarray(sheet)[y : y + sheets.height, x : x + sheets.width]


@pytest.mark.parametrize(("max_bytes", "tolerance", "end"), [(None, 0, "png"), (10**6, 3, "jpg")])
def test_write_sprite_sheets_holds_every_slice_at_its_place(max_bytes, tolerance, end, tmp_path):
    gray = np.arange(37)[:, None, None] * 6 % 256 + np.zeros((37, 21, 30))
    sheets = write_sprite_sheets(tmp_path, gray / 255, max_bytes)
    assert sheets.files == [f"slices_{k:03d}.{end}" for k in range(3)]
    assert sorted(path.name for path in tmp_path.iterdir()) == sheets.files
    assert (sheets.width, sheets.height, sheets.step_x, sheets.step_y) == (30, 21, 32, 24)
    for i in range(37):
        assert np.abs(tile(tmp_path, sheets, i).astype(float) - gray[i]).max() <= tolerance


def test_write_sprite_sheets_makes_slices_smaller_until_they_fit(tmp_path):
    noise = np.random.default_rng(0).random((40, 128, 96))
    sheets = write_sprite_sheets(tmp_path, noise, 100_000)
    assert sum((tmp_path / name).stat().st_size for name in sheets.files) <= 100_000
    assert sheets.width / sheets.height == pytest.approx(0.75, abs=0.02)
    assert sheets.height >= 48


def test_write_sprite_sheets_shows_nan_as_black_and_clips(tmp_path):
    sheets = write_sprite_sheets(tmp_path, np.array([[[np.nan, -1.0, 2.0, 0.5]]]))
    assert tile(tmp_path, sheets, 0).tolist() == [[0, 0, 255, 128]]


def test_write_sprite_sheets_has_one_slice_on_a_sheet_if_it_is_large(tmp_path):
    sheets = write_sprite_sheets(tmp_path, np.zeros((2, 1100, 30)))
    assert (sheets.rows, sheets.columns, len(sheets.files)) == (1, 4, 1)
