"""Tests of the ink of pens on thumbnails, against the stains of skimage.color."""

import colorsys

import numpy as np
import pytest
from scipy import ndimage
from skimage import color

from monai_mil_ext.data import OtsuTissue, TissueLabel

GLASS = np.array([243.0, 242.0, 244.0])
STAINS = {  # optical densities of red, green and blue
    "hematoxylin": color.rgb_from_hed[0],
    "eosin": color.rgb_from_hed[1],
    "DAB": color.rgb_from_hed[2],
    "Fast Red": color.rgb_from_rbd[0],
    "Fast Blue": color.rgb_from_rbd[1],
    "AEC": color.rgb_from_hax[1],
    "PAS": color.rgb_from_hpx[1],
    "Ponceau": color.rgb_from_bpx[1],
    "azocarmine": color.rgb_from_bro[1],
    "orange G": color.rgb_from_bro[2],
    "Feulgen": color.rgb_from_fgx[0],
}
BLUE_STAINS = {
    "methyl blue of a trichrome": color.rgb_from_bpx[0],
    "aniline blue": color.rgb_from_bro[0],
    "methylene blue of Giemsa": color.rgb_from_bex[0],
    "Alcian blue": color.rgb_from_ahx[0],
}
GREEN_STAINS = {"light green": color.rgb_from_fgx[1], "methyl green": color.rgb_from_gdx[0]}
PENS = {
    "green": [(20, 90, 40), (20, 140, 60)],
    "turquoise": [(20, 110, 120), (42, 141, 140)],
    "blue": [(30, 60, 180), (30, 60, 170)],
    "black": [(10, 10, 10), (15, 15, 18)],
    "red": [(200, 20, 30), (205, 25, 40)],
}
TISSUE = np.s_[14:106, 14:146]


def section(vector, low, high, seed=0):
    """Return glass with a stained rectangle of uneven density, from ``low`` to ``high`` in the densest channel."""
    draw = np.random.default_rng(seed)
    thickness = ndimage.gaussian_filter(draw.normal(size=(100, 140)), 3)
    thickness = low + (high - low) * (thickness - thickness.min()) / np.ptp(thickness)
    image = np.tile(GLASS, (120, 160, 1))
    vector = np.abs(vector) / np.abs(vector).max()
    image[10:110, 10:150] *= np.exp(-thickness[..., None] * vector)
    return image


def with_noise(image):
    noise = np.random.default_rng(1).normal(0, 2, image.shape)
    return (image + noise).clip(0, 255).astype(np.uint8)


def ink_fraction(vector, low, high):
    labels = OtsuTissue().labels(with_noise(section(vector, low, high)))
    return (labels[TISSUE] == TissueLabel.INK).mean()


@pytest.mark.parametrize("stain", STAINS)
def test_find_ink_in_no_stain(stain):
    assert max(ink_fraction(STAINS[stain], low, high) for low, high in ((0.1, 0.5), (0.5, 1.1), (1.1, 1.7))) < 0.02


@pytest.mark.parametrize("stain", BLUE_STAINS)
def test_find_ink_in_a_blue_stain_only_where_it_is_dense(stain):
    assert max(ink_fraction(BLUE_STAINS[stain], low, high) for low, high in ((0.1, 0.5), (0.5, 1.0))) < 0.02
    assert ink_fraction(BLUE_STAINS[stain], 1.3, 1.8) > 0.9


@pytest.mark.parametrize("stain", GREEN_STAINS)
def test_find_ink_in_a_green_stain(stain):
    assert ink_fraction(GREEN_STAINS[stain], 0.5, 1.1) > 0.9


def hues(colors, count=8):
    """Yield variants of the colors: hue by 3 percent of the circle, lightness and saturation."""
    draw = np.random.default_rng(2)
    for k in range(count):
        hue, light, vivid = colorsys.rgb_to_hls(*(np.array(colors[k % len(colors)]) / 255))
        light, vivid = min(1, light * draw.uniform(0.8, 1.15)), vivid * draw.uniform(0.9, 1)
        yield 255 * np.array(colorsys.hls_to_rgb((hue + draw.uniform(-0.03, 0.03)) % 1, light, vivid))


@pytest.mark.parametrize("pen", PENS)
def test_find_ink_of_strokes_with_soft_rims(pen):
    """Two strokes, on glass and across H&E: ink and its rims are left out, the tissue beside them is not.

    Across dense tissue, the colors of turquoise and red ink mix with that of the stain, and a part is missed.
    """
    found = []
    for color_of_pen in hues(PENS[pen]):
        image = section(color.rgb_from_hed[0] + color.rgb_from_hed[1], 0.3, 1.0)
        image[:55] = GLASS
        cover = np.zeros((120, 160))
        cover[20:34, 10:150] = cover[75:89, 10:150] = 1
        cover = ndimage.gaussian_filter(cover, 1.5)[..., None]
        labels = OtsuTissue().labels(with_noise(image * (1 - cover) + color_of_pen * (image / GLASS) ** 0.5 * cover))
        cover = cover[..., 0]
        ink, far = labels == TissueLabel.INK, ndimage.distance_transform_edt(cover < 0.02) > 12
        glass, tissue = np.s_[:50], np.s_[60:106, 14:146]
        missed = labels[glass] == TissueLabel.TISSUE
        found.append(
            [
                ink[glass][cover[glass] > 0.85].mean(),
                ink[tissue][cover[tissue] > 0.85].mean(),
                1 - missed[cover[glass] > 0.15].mean(),
                (labels[tissue] == TissueLabel.TISSUE)[far[tissue]].mean(),
            ]
        )
    assert (np.mean(found, axis=0) > [0.97, 0.8, 0.9, 0.99]).all(), np.mean(found, axis=0)


@pytest.mark.parametrize("color_of_pen", [(35, 35, 40), (20, 20, 22), (40, 42, 38)], ids=str)
def test_find_ink_of_a_thin_black_stroke(color_of_pen):
    """No pixel of it is as dark as the ink."""
    image = np.tile(GLASS, (120, 160, 1))
    cover = np.zeros((120, 160))
    cover[60:64, 10:150] = 1
    cover = ndimage.gaussian_filter(cover, 1.0)[..., None]
    labels = OtsuTissue().labels(with_noise(image * (1 - cover) + np.array(color_of_pen) * cover))
    assert not (labels == TissueLabel.TISSUE).any()
    assert (labels == TissueLabel.INK)[60:64, 12:148].all()
