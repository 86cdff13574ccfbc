"""Tests of tissue detection and the fraction of tissue in tiles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_mil_ext.data import OtsuTissue, tissue_fraction
from tests.make_slide import stained

BOX = (60, 40, 260, 180)  # left, top, right, bottom


def boxed(mask):
    """Return whether the mask equals the box up to two pixels at its border."""
    left, top, right, bottom = BOX
    inner, outer = mask[top + 2 : bottom - 2, left + 2 : right - 2], mask.copy()
    outer[top - 2 : bottom + 2, left - 2 : right + 2] = False
    return bool(inner.all() and not outer.any())


@pytest.mark.parametrize("glass", [(243, 242, 244), (255, 255, 255), (222, 224, 226), (240, 236, 228)])
def test_otsu_tissue_excludes_glass(glass):
    thumbnail = stained((240, 320), BOX)
    thumbnail[(thumbnail > 225).all(axis=-1)] = glass
    assert boxed(OtsuTissue()(thumbnail))


@pytest.mark.parametrize("color", [(196, 120, 170), (228, 196, 216), (110, 70, 140), (150, 100, 60)])
def test_otsu_tissue_includes_all_stains(color):
    assert boxed(OtsuTissue()(stained((240, 320), BOX, color=color)))


@pytest.mark.parametrize("pen", [(20, 140, 60), (30, 60, 170), (15, 15, 18), (205, 25, 40)], ids=str)
def test_otsu_tissue_excludes_pen_marks(pen):
    thumbnail = stained((240, 320), BOX, color=(228, 196, 216))  # pale: a vivid pen would move Otsu's threshold over it
    thumbnail[195:225, 20:300] = pen
    assert boxed(OtsuTissue()(thumbnail))


@pytest.mark.parametrize("pen", [(20, 140, 60), (30, 60, 170)], ids=str)
def test_otsu_tissue_excludes_pale_green_and_blue_pen_marks(pen):
    """A pale red stroke has the hue of blood and is kept."""
    thumbnail = stained((240, 320), BOX, color=(228, 196, 216))
    thumbnail[195:225, 20:300] = np.mean([pen, (243, 242, 244)], axis=0)
    assert boxed(OtsuTissue()(thumbnail))


def test_otsu_tissue_without_pens_includes_pen_marks():
    thumbnail = stained((240, 320), BOX, color=(228, 196, 216))
    thumbnail[195:225, 20:300] = 20, 140, 60
    assert OtsuTissue(pens=False)(thumbnail)[200:220, 30:290].all()


@pytest.mark.parametrize("noise", [0, 1, 2])
def test_otsu_tissue_of_a_blank_slide(noise):
    thumbnail = stained((240, 320), seed=noise)
    noise_values = np.random.default_rng(noise).integers(-2, 3, size=thumbnail.shape)
    assert not OtsuTissue()((thumbnail + noise_values).clip(0, 255).astype(np.uint8)).any()
    assert not OtsuTissue()(np.zeros((240, 320, 3), dtype=np.uint8)).any()


def test_otsu_tissue_max_hole_and_min_area():
    thumbnail = stained((240, 320), BOX, (290, 200, 293, 203))
    thumbnail[100:108, 100:108] = thumbnail[60:140, 180:230] = 243
    mask = OtsuTissue(max_hole=0.002, min_area=0.001)(thumbnail)
    assert mask[95:112, 95:112].all()
    assert not mask[64:136, 184:226].any()
    assert not mask[190:, 280:].any()
    assert OtsuTissue(min_area=0)(thumbnail)[201, 291]
    assert not OtsuTissue(max_hole=0)(thumbnail)[103:105, 103:105].any()


def test_otsu_tissue_does_not_fill_bays_of_the_edge():
    thumbnail = stained((240, 320), (0, 0, 320, 240))
    thumbnail[:20, 100:120] = 243
    assert not OtsuTissue(max_hole=0.5)(thumbnail)[:15, 105:115].any()


@pytest.mark.parametrize("seed", [0, 1])
def test_otsu_tissue_without_glass(seed):
    assert OtsuTissue()(stained((240, 320), (0, 0, 320, 240), seed=seed)).all()


def test_otsu_tissue_of_a_single_saturation():
    """Otsu's threshold needs two values; ``min_saturation`` decides alone."""
    pale = np.full((40, 60, 3), (230, 212, 221), dtype=np.uint8)
    assert OtsuTissue()(pale).all()
    assert not OtsuTissue(min_saturation=0.1)(pale).any()


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


def test_otsu_tissue_refuses_invalid_options():
    with pytest.raises(ValueError, match=r"`max_hole` must be from 0 to 1, got 40"):
        OtsuTissue(max_hole=40)


def test_otsu_tissue_without_pens_leaves_out_what_is_nearly_black():
    """A dark violet of (10, 2, 12) has a high saturation, but no color that an eye would see."""
    thumbnail = stained((240, 320), BOX)
    thumbnail[200:230, 20:300] = (10, 2, 12)
    assert boxed(OtsuTissue(pens=False)(thumbnail))
