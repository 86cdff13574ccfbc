"""Tests of the animation of the slices of a scan."""

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from monai_mil_ext.visualize import write_cine
from tests.visualize.attention_scan import scan


def test_write_cine_shows_every_slice_and_the_attention_of_all(tmp_path):
    attention, position, slices, reference = scan()
    slices = np.repeat(np.repeat(slices, 8, 1), 8, 2) * 0 + np.linspace(0.1, 0.9, 9)[:, None, None]
    masks = np.repeat(np.repeat(reference, 8, 1), 8, 2)
    write_cine(tmp_path / "c.gif", attention, position, slices, masks, milliseconds=200)
    movie = Image.open(tmp_path / "c.gif")
    assert (movie.n_frames, movie.info["duration"], movie.info["loop"]) == (9, 200, 0)
    assert movie.info["comment"] == b"research use only"
    for i in (0, 8):
        movie.seek(i)
        frame = np.asarray(movie.convert("RGB")).astype(int)
        assert abs(frame[5, 5] - round(slices[i, 0, 0] * 255)).max() <= 3
        middle = frame[3 if i == 0 else 124, 128 + 2 + 14]  # the bar: highest position on top
        expected = mpl.colormaps["cividis"](1.0 if i == 0 else attention[0] / attention[8])[:3]
        np.testing.assert_allclose(middle / 255, expected, atol=0.04)
    outline = frame[32:72, 32:72].reshape(-1, 3)
    assert (outline[:, 2] - outline[:, 0] > 60).any()


def test_write_cine_refuses_invalid_arguments(tmp_path):
    attention, position, slices, _ = scan()
    with pytest.raises(ValueError, match="must have one length"):
        write_cine(tmp_path / "c.gif", attention, position[1:], slices)
    with pytest.raises(ValueError, match="`milliseconds` must be a positive integer, got 0"):
        write_cine(tmp_path / "c.gif", attention, position, slices, milliseconds=0)
    assert not (tmp_path / "c.gif").exists()
