"""Tests of tissue detection by colors."""

import io

import numpy as np
import pytest
from PIL import Image
from skimage.data import immunohistochemistry

from monai_mil_ext.data import OtsuTissue, TissueLabel
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


def test_otsu_tissue_excludes_pale_green_pen_marks():
    """A pale red stroke has the hue of blood, a pale blue one that of hematoxylin: both are kept."""
    thumbnail = stained((240, 320), BOX, color=(228, 196, 216))
    thumbnail[195:225, 20:300] = np.mean([(20, 140, 60), (243, 242, 244)], axis=0)
    assert boxed(OtsuTissue()(thumbnail))


HEMATOXYLIN = [(150, 165, 205), (120, 140, 190), (170, 180, 215), (100, 120, 180), (70, 90, 170), (130, 120, 180)]
CHROMOGENS = [
    (120, 80, 40),
    (60, 35, 15),
    (190, 80, 60),
    (170, 40, 90),
    (205, 70, 150),
]  # DAB twice, AEC, Fast Red, PAS
SPECIAL = [(70, 110, 170), (160, 200, 230), (110, 95, 85)]  # aniline blue, pale Alcian blue, silver
PALE = [(236, 222, 230), (220, 225, 235), (240, 225, 212)]
GLASS = [(243, 242, 244), (255, 255, 255), (240, 236, 228), (205, 205, 203)]


@pytest.mark.parametrize("glass", GLASS, ids=str)
@pytest.mark.parametrize("color", [*HEMATOXYLIN, *CHROMOGENS, *SPECIAL, *PALE], ids=str)
def test_otsu_tissue_includes_a_uniform_stain_on_glass(color, glass):
    thumbnail = np.full((240, 320, 3), glass, dtype=np.float64)
    left, top, right, bottom = BOX
    thumbnail[top:bottom, left:right] *= np.array(color) / 243
    assert boxed(OtsuTissue()(thumbnail.astype(np.uint8)))


@pytest.mark.parametrize("pale", [(236, 222, 230), (224, 228, 238)], ids=str)
def test_otsu_tissue_includes_pale_tissue_beside_dark(pale):
    thumbnail = stained((240, 320), BOX, color=(150, 90, 160))
    thumbnail[40:180, 160:260] = pale
    assert boxed(OtsuTissue()(thumbnail))


def test_otsu_tissue_includes_the_stroma_of_real_immunohistochemistry():
    """Glass is a seventh of the picture: the left margin, the lumen of a gland, clefts below on the right."""
    image = immunohistochemistry()
    mask = OtsuTissue()(image)
    assert 0.85 < mask.mean() < 0.9
    assert not mask[340:380, :25].any()  # the margin
    assert TissueLabel.INK not in OtsuTissue().labels(image)
    thumbnail = np.asarray(Image.fromarray(image).reduce(8))  # as coarse as that of a slide
    assert OtsuTissue()(thumbnail).mean() > 0.9


def shaded(low, color=(243, 242, 244)):
    """Return glass whose brightness falls towards the corners, to the fraction ``low``."""
    y, x = np.mgrid[-1:1:240j, -1:1:320j]
    return np.array(color) * (1 - (1 - low) * (x**2 + y**2) / 2)[..., None]


def empty_slides():
    draw = np.random.default_rng(0)
    dusty = shaded(1.0)
    for y, x, gray in zip(
        draw.integers(0, 236, 60), draw.integers(0, 316, 60), draw.integers(60, 200, 60), strict=True
    ):
        dusty[y : y + 3, x : x + 3] = gray
    noise = draw.normal(size=(240, 320, 3))
    jpeg = io.BytesIO()
    Image.fromarray((shaded(0.9) + 3 * noise).clip(0, 255).astype(np.uint8)).save(jpeg, "JPEG", quality=30)
    half = shaded(1.0, (240, 236, 228))
    half[:, :160] = 255  # not scanned
    cases = {"blue": shaded(0.8, (226, 233, 242)) + noise, "green": shaded(0.9, (228, 242, 234)) + noise}
    cases |= {"vignette": shaded(0.6), "warm": shaded(0.8, (240, 236, 228)), "dust": dusty, "half": half}
    cases |= {"noise": shaded(1.0) + 4 * noise, "dark": shaded(0.5, (180, 180, 182)) + noise, "white": shaded(1.0) * 2}
    pictures = {name: image.clip(0, 255).astype(np.uint8) for name, image in cases.items()}
    return {**pictures, "jpeg": np.asarray(Image.open(jpeg))}


@pytest.mark.parametrize("glass", [(226, 233, 242), (228, 242, 234), (250, 245, 230)], ids=str)
def test_otsu_tissue_on_glass_of_a_color_cast(glass):
    thumbnail = np.full((240, 320, 3), glass, dtype=np.uint8)
    left, top, right, bottom = BOX
    thumbnail[top:bottom, left:right] = 190, 120, 170
    assert boxed(OtsuTissue()(thumbnail))


@pytest.mark.parametrize("name", empty_slides())
def test_otsu_tissue_of_empty_glass(name):
    assert not OtsuTissue(min_area=0)(empty_slides()[name]).any()


def test_otsu_tissue_is_deterministic():
    image = immunohistochemistry()
    assert np.array_equal(OtsuTissue()(image), OtsuTissue()(image.copy()))


def test_otsu_tissue_labels_the_ink_that_it_leaves_out():
    thumbnail = stained((240, 320), BOX)
    thumbnail[200:220, 20:300] = 20, 140, 60
    labels = OtsuTissue().labels(thumbnail)
    assert (labels[202:218, 22:298] == TissueLabel.INK).all()
    assert labels[100, 100] == TissueLabel.TISSUE
    assert labels[10, 10] == TissueLabel.GLASS
    assert TissueLabel.INK not in OtsuTissue(pens=False).labels(thumbnail)


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


def test_otsu_tissue_refuses_invalid_options():
    with pytest.raises(ValueError, match=r"`max_hole` must be from 0 to 1, got 40"):
        OtsuTissue(max_hole=40)
    with pytest.raises(ValueError, match=r"`pens` must be true or false, got 'no'"):
        OtsuTissue(pens="no")
    assert OtsuTissue(pens="false") == OtsuTissue(pens=False)  # a word of a command line


def test_otsu_tissue_without_pens_leaves_out_what_is_nearly_black():
    """A dark violet of (10, 2, 12) has a high saturation, but no color that an eye would see."""
    thumbnail = stained((240, 320), BOX)
    thumbnail[200:230, 20:300] = (10, 2, 12)
    assert boxed(OtsuTissue(pens=False)(thumbnail))
