"""Tests of tissue maps by any detector, and of the fraction of tissue in tiles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_mil_ext.data import OtsuTissue, SlideFile, SlideFileError, TissueLabel, find_tissue, tissue_fraction
from tests.make_slide import stained, write_slide

BOX = (60, 40, 260, 180)  # left, top, right, bottom


@pytest.fixture
def slide(tmp_path):
    with SlideFile(write_slide(tmp_path / "s.tif", stained((240, 320), BOX), mpp=0.5)) as opened:
        yield opened


def all_ink(thumbnail):
    return np.full(thumbnail.shape[:2], TissueLabel.INK, dtype=np.int64)


class Detector:
    """Detector with a resolution that records what it gets."""

    mpp = 2.0
    left_out = "fold, pen"

    def labels(self, thumbnail, mpp):
        self.got = thumbnail.shape, mpp
        labels = np.zeros(thumbnail.shape[:2], dtype=np.int64)
        labels[:10], labels[10:12] = 3, 1
        return labels


@pytest.mark.parametrize(
    "convert",
    [bool, np.uint8, np.int64, float, lambda mask: 255 * mask.astype(np.uint8)],
    ids=["bool", "uint8", "int64", "float", "255"],
)
def test_find_tissue_accepts_masks_of_any_type(slide, convert):
    expected = OtsuTissue()(slide.thumbnail(256).image)
    to_mask = convert if convert not in (bool, np.uint8, np.int64, float) else lambda mask: mask.astype(convert)
    found = find_tissue(slide, lambda thumbnail: to_mask(expected), 256)
    assert found.labels.dtype == np.uint8
    assert np.array_equal(found.mask, expected)
    assert (found.left_out_fraction, found.note()) == (0.0, "")


def test_find_tissue_says_what_is_left_out(slide):
    found = find_tissue(slide, all_ink)
    assert (found.mask.any(), found.left_out_fraction) == (False, 1.0)
    assert found.note() == "100% of what is not glass was taken for other than tissue"
    assert find_tissue(slide, lambda thumbnail: 0 * all_ink(thumbnail)).note() == ""


def test_find_tissue_gives_a_detector_the_resolution_that_it_needs(slide):
    detector = Detector()
    found = find_tissue(slide, detector, 32)
    assert detector.got == ((60, 80, 3), 2.0)
    assert found.note() == "83% of what is not glass was taken for fold, pen"
    assert find_tissue(slide, detector, 320).thumbnail.image.shape == (240, 320, 3)


def test_find_tissue_names_the_option_that_keeps_ink(tmp_path):
    image = stained((240, 320), BOX, color=(20, 110, 50))
    with SlideFile(write_slide(tmp_path / "ink.tif", image)) as slide:
        note = find_tissue(slide, OtsuTissue()).note()
        assert note == "100% of what is not glass was taken for ink, which --tissue#pens false keeps"
        kept = find_tissue(slide, OtsuTissue(pens=False))
    assert kept.note() == ""
    assert kept.mask.mean() == pytest.approx(200 * 140 / (240 * 320), rel=0.05)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((2, 2)), r"`tissue` must give a mask of shape \(240, 320\), got \(2, 2\)"),
        (np.full((240, 320), 0.5), "`tissue` must give a mask or integers, got other values of float64"),
        (np.full((240, 320), np.nan), "`tissue` must give a mask or integers, got other values of float64"),
        (np.full((240, 320), -1), "`tissue` must give labels from 0 to 255, got -1 to -1"),
        (np.full((240, 320), 300), "`tissue` must give labels from 0 to 255, got 300 to 300"),
    ],
    ids=["shape", "probability", "nan", "negative", "large"],
)
def test_find_tissue_refuses_what_is_no_mask(slide, labels, message):
    with pytest.raises(ValueError, match=message):
        find_tissue(slide, lambda thumbnail: labels)


def test_find_tissue_needs_a_resolution_that_the_detector_names(tmp_path, slide):
    with SlideFile(write_slide(tmp_path / "none.tif", stained((240, 320)), mpp=None)) as none:
        with pytest.raises(SlideFileError, match=r"must state its mpp for this tissue detector .* got none in 'none"):
            find_tissue(none, Detector())
        assert not find_tissue(none, OtsuTissue()).mask.any()
    detector = Detector()
    detector.mpp = 0.01
    message = "at most 8192 pixels along a side at the 0.01 mpp of the tissue detector, got 16000 in 's.tif'"
    with pytest.raises(SlideFileError, match=message):
        find_tissue(slide, detector)


@given(st.floats(0, 300), st.floats(0, 200), st.floats(5, 90), st.floats(1, 7), st.integers(0, 99))
def test_tissue_share_is_the_integral_over_a_tile(x, y, edge, downsample, seed):
    mask = np.random.default_rng(seed).random((31, 43)) < 0.4
    corner = np.array([[int(x), int(y)]])
    fine = 64
    points = [(c + (np.arange(fine * 8) + 0.5) / (fine * 8) * edge) / downsample for c in corner[0]]
    columns, rows = (p[p < side].astype(int) for p, side in zip(points, (43, 31), strict=True))
    expected = mask[np.ix_(rows, columns)].sum() / (fine * 8) ** 2
    assert tissue_fraction(mask, corner, edge, downsample)[0] == pytest.approx(expected, abs=0.01)


def test_tissue_share_is_exact():
    mask = np.zeros((4, 6), dtype=bool)
    mask[1, 2:4] = True
    corners = np.array([[0, 0], [20, 10], [25, 15], [50, 30]])
    assert tissue_fraction(mask, corners, 20.0, 10.0) == pytest.approx([0.0, 0.5, 0.1875, 0.0])
