"""Tests of the animation of the slices of a scan."""

import numpy as np
import pytest
from PIL import Image

from monai_mil_ext.visualize import SliceDisplay, attention_ratio, write_cine
from monai_mil_ext.visualize.relative_attention import ratio_colors
from tests.visualize.attention_scan import scan


def frames(path):
    movie = Image.open(path)
    for i in range(movie.n_frames):
        movie.seek(i)
        yield np.asarray(movie.convert("RGB")).astype(int)


def test_write_cine_shows_every_slice_and_the_attention_of_all(tmp_path):
    attention, position, slices, reference = scan()
    slices = np.repeat(np.repeat(slices, 16, 1), 16, 2) * 0 + np.linspace(0.1, 0.9, 9)[:, None, None]
    masks = np.repeat(np.repeat(reference, 16, 1), 16, 2)
    write_cine(tmp_path / "c.gif", attention, position, slices, masks, milliseconds=200)
    movie = Image.open(tmp_path / "c.gif")
    assert (movie.n_frames, movie.info["duration"], movie.info["loop"]) == (9, 200, 0)
    assert movie.info["comment"] == b"research use only"
    colors = ratio_colors(attention_ratio(attention))
    for i, frame in enumerate(frames(tmp_path / "c.gif")):
        assert abs(frame[15, 15] - round(slices[i, 0, 0] * 255)).max() <= 3
        if i in (0, 8):  # the bar, away from the markers: highest position on top
            place = 6 if i == 0 else 249
            assert abs(frame[place, 256 + 2 + 14] - colors[8 if i == 0 else 0]).max() <= 12
    outline = frame[64:144, 64:144].reshape(-1, 3)
    assert (outline[:, 2] - outline[:, 0] > 60).any()


def test_write_cine_writes_letters_and_is_in_true_proportion(tmp_path):
    attention, position, slices, _ = scan(2)
    blank = np.zeros_like(slices)
    display = SliceDisplay("axial", (3.0, 1.0), None, 2, np.array([7, 6]), "window 0 to 80 HU")
    write_cine(tmp_path / "c.gif", attention, position, blank, note="m 2", display=display)
    assert Image.open(tmp_path / "c.gif").info["comment"] == b"research use only; window 0 to 80 HU; m 2"
    frame = next(frames(tmp_path / "c.gif"))
    assert frame.shape[0] > 256  # 48 mm high and 16 mm wide
    assert frame.shape[1] == round(256 / 3) + 2 + 28
    yellow = (frame[:256, :85] - np.array([255, 224, 138])).__abs__().sum(axis=2) < 60
    for region in (yellow[:20], yellow[-20:], yellow[118:138, :20], yellow[118:138, -20:]):
        assert region.any()
    write_cine(tmp_path / "none.gif", attention, position, blank)
    frame = next(frames(tmp_path / "none.gif"))
    assert not ((frame[:256, :256] - np.array([255, 224, 138])).__abs__().sum(axis=2) < 60).any()


def test_write_cine_marks_slices_at_their_mm(tmp_path):
    position = np.array([0.0, 10.0, 40.0])
    write_cine(tmp_path / "c.gif", np.array([0.1, 0.2, 0.7]), position, np.zeros((3, 256, 256)))
    for frame, part in zip(frames(tmp_path / "c.gif"), (5 / 50, 15 / 50, 45 / 50), strict=True):
        (rows,) = np.nonzero(frame[:256, 256 + 5].sum(axis=1) > 700)  # inside of the white marker
        assert rows.mean() == pytest.approx(255 * (1 - part), abs=2)


def test_write_cine_refuses_invalid_arguments(tmp_path):
    attention, position, slices, _ = scan()
    with pytest.raises(ValueError, match="must have one length"):
        write_cine(tmp_path / "c.gif", attention, position[1:], slices)
    with pytest.raises(ValueError, match="`milliseconds` must be a positive integer, got 0"):
        write_cine(tmp_path / "c.gif", attention, position, slices, milliseconds=0)
    assert not (tmp_path / "c.gif").exists()
