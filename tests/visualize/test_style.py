"""Tests of colors, footer and file output that all figures share."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from monai_mil_ext.data.slides.heatmap_files import LARGEST_RATIO
from monai_mil_ext.visualize._style import HEAT, describe_ratio, is_nearly_even, ratio_norm, save_figure, sign


def test_sign_adds_title_and_research_use():
    figure = Figure()
    assert sign(figure, "case 1") is figure
    assert [text.get_text() for text in figure.texts] == ["case 1", "research use only"]


def test_save_figure_writes_a_signed_file_atomically(tmp_path):
    path = save_figure(Figure(figsize=(2, 1)), tmp_path / "new" / "a.png", dpi=50)
    with Image.open(path) as image:
        assert image.text["Description"] == "research use only"
        assert image.size == (100, 50)
    with pytest.raises(ValueError, match="is not supported"):
        save_figure(Figure(), tmp_path / "new" / "a.txt")
    assert [file.name for file in path.parent.iterdir()] == ["a.png"]


def test_style_heat_colormap_increases_in_lightness():
    colors = mpl.colormaps[HEAT](np.linspace(0, 1, 64))[:, :3]
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    assert (np.diff(linear @ [0.2126, 0.7152, 0.0722]) > 0).all()


def test_ratio_norm_has_uniform_attention_in_the_middle_and_clips():
    norm = ratio_norm()
    assert (norm.vmin, norm.vmax) == (1 / LARGEST_RATIO, LARGEST_RATIO)
    np.testing.assert_allclose(norm([0.1, 0.25, 0.5, 1, 2, 4, 99]), [0, 0, 0.25, 0.5, 0.75, 1, 1], atol=1e-12)
    assert ratio_norm(8.0)(8.0) == 1


@pytest.mark.parametrize(
    ("highest", "text", "even"),
    [
        (1.0, "at most 1 x uniform, so nearly even", True),
        (1.49, "at most 1.49 x uniform, so nearly even", True),
        (1.5, "at most 1.5 x uniform", False),
        (157.6, "at most 158 x uniform", False),
    ],
)
def test_describe_ratio_says_where_attention_is_nearly_even(highest, text, even):
    assert describe_ratio(highest).startswith(f"attention: {text}")
    assert (is_nearly_even(highest), "its order says little" in describe_ratio(highest)) == (even, even)
