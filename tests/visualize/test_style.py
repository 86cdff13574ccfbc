"""Tests of colors, footer and file output that all figures share."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from monai_mil_ext.visualize._style import HEAT, save_figure, sign


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
