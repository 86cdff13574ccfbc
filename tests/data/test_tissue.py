"""Which parts of a slide are tissue."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_mil_ext.data import OtsuTissue, otsu_threshold, tissue_share
from tests.make_slide import stained

BOX = (60, 40, 260, 180)  # left, top, right, bottom


def boxed(mask):
    """Whether the mask is the box, but for two pixels at its rim."""
    left, top, right, bottom = BOX
    inner, outer = mask[top + 2 : bottom - 2, left + 2 : right - 2], mask.copy()
    outer[top - 2 : bottom + 2, left - 2 : right + 2] = False
    return bool(inner.all() and not outer.any())


@pytest.mark.parametrize("glass", [(243, 242, 244), (255, 255, 255), (222, 224, 226), (240, 236, 228)])
def test_glass_is_no_tissue_whatever_its_white(glass):
    picture = stained((240, 320), BOX)
    picture[(picture > 225).all(axis=-1)] = glass
    assert boxed(OtsuTissue()(picture))


@pytest.mark.parametrize("colour", [(196, 120, 170), (228, 196, 216), (110, 70, 140), (150, 100, 60)])
def test_strong_pale_blue_and_brown_stains_are_tissue(colour):
    assert boxed(OtsuTissue()(stained((240, 320), BOX, color=colour)))


@pytest.mark.parametrize("pen", [(20, 140, 60), (30, 60, 170), (15, 15, 18), (205, 25, 40)], ids=str)
def test_felt_tips_are_no_tissue_and_hide_none(pen):
    picture = stained((240, 320), BOX, color=(228, 196, 216))  # pale: a vivid pen would move Otsu's threshold over it
    picture[195:225, 20:300] = pen
    assert boxed(OtsuTissue()(picture))


@pytest.mark.parametrize("pen", [(20, 140, 60), (30, 60, 170)], ids=str)
def test_half_dry_green_and_blue_felt_tips_too(pen):
    """A half dry red one has the hue of blood and stays."""
    picture = stained((240, 320), BOX, color=(228, 196, 216))
    picture[195:225, 20:300] = np.mean([pen, (243, 242, 244)], axis=0)
    assert boxed(OtsuTissue()(picture))


def test_without_the_rule_a_pen_is_taken_for_tissue():
    picture = stained((240, 320), BOX, color=(228, 196, 216))
    picture[195:225, 20:300] = 20, 140, 60
    assert OtsuTissue(pens=False)(picture)[200:220, 30:290].all()


@pytest.mark.parametrize("noise", [0, 1, 2])
def test_a_blank_slide_has_none(noise):
    picture = stained((240, 320), seed=noise)
    colours = np.random.default_rng(noise).integers(-2, 3, size=picture.shape)
    assert not OtsuTissue()((picture + colours).clip(0, 255).astype(np.uint8)).any()
    assert not OtsuTissue()(np.zeros((240, 320, 3), dtype=np.uint8)).any()


def test_small_holes_are_filled_and_small_pieces_left_out():
    picture = stained((240, 320), BOX, (290, 200, 293, 203))
    picture[100:108, 100:108] = picture[60:140, 180:230] = 243
    mask = OtsuTissue(max_hole=0.002, min_area=0.001)(picture)
    assert mask[95:112, 95:112].all()
    assert not mask[64:136, 184:226].any()
    assert not mask[190:, 280:].any()
    assert OtsuTissue(min_area=0)(picture)[201, 291]
    assert not OtsuTissue(max_hole=0)(picture)[103:105, 103:105].any()


def test_a_bay_of_the_edge_is_no_hole():
    picture = stained((240, 320), (0, 0, 320, 240))
    picture[:20, 100:120] = 243
    assert not OtsuTissue(max_hole=0.5)(picture)[:15, 105:115].any()


@pytest.mark.parametrize("seed", [0, 1])
def test_a_picture_without_glass_is_all_tissue(seed):
    assert OtsuTissue()(stained((240, 320), (0, 0, 320, 240), seed=seed)).all()


def test_the_threshold_is_otsus():
    """By search over all thresholds."""
    values = np.random.default_rng(0).normal([40, 150], [12, 25], size=(5000, 2)).clip(0, 255).astype(np.uint8)

    def within(t):
        low, high = values[values <= t], values[values > t]
        return low.size * low.var() + high.size * high.var() if low.size and high.size else np.inf

    assert otsu_threshold(values) == min(range(256), key=within)


@given(st.floats(0, 300), st.floats(0, 200), st.floats(5, 90), st.floats(1, 7), st.integers(0, 99))
def test_the_share_of_a_tile_is_the_integral_over_it(x, y, edge, downsample, seed):
    mask = np.random.default_rng(seed).random((31, 43)) < 0.4
    corner = np.array([[int(x), int(y)]])
    fine = 64
    points = [(c + (np.arange(fine * 8) + 0.5) / (fine * 8) * edge) / downsample for c in corner[0]]
    columns, rows = (p[p < side].astype(int) for p, side in zip(points, (43, 31), strict=True))
    expected = mask[np.ix_(rows, columns)].sum() / (fine * 8) ** 2
    assert tissue_share(mask, corner, edge, downsample)[0] == pytest.approx(expected, abs=0.01)


def test_the_share_is_exact_where_it_can_be_counted():
    mask = np.zeros((4, 6), dtype=bool)
    mask[1, 2:4] = True
    corners = np.array([[0, 0], [20, 10], [25, 15], [50, 30]])
    assert tissue_share(mask, corners, 20.0, 10.0) == pytest.approx([0.0, 0.5, 0.1875, 0.0])


def test_a_bad_option_is_named():
    with pytest.raises(ValueError, match=r"`max_hole` must be from 0 to 1, got 40"):
        OtsuTissue(max_hole=40)
