"""Tests of the figure of a slide with its heat map."""

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image

from monai_mil_ext.data import SlideFile
from monai_mil_ext.transforms import TileScoresToHeatmap
from monai_mil_ext.visualize import plot_slide_overlay, write_slide_overlay
from tests.make_slide import stained, write_slide


@pytest.fixture
def slide_and_map(tmp_path):
    """Thumbnail of a slide of 800 x 600 pixels and a heat map of two tiles."""
    slide = SlideFile(write_slide(tmp_path / "s.tif", stained((600, 800), (100, 100, 700, 500))))
    coords = np.array([[128, 128], [512, 320]])
    return slide.thumbnail(400), TileScoresToHeatmap(32)(np.array([0.2, 0.8]), coords, 128, slide.size, slide.mpp)


def test_plot_slide_overlay_draws_the_map_over_its_tiles(slide_and_map):
    thumbnail, heat = slide_and_map
    figure = plot_slide_overlay(thumbnail, heat, title="case-1")
    plain, over = figure.axes[:2]
    assert plain.images[0].get_extent() == over.images[0].get_extent() == [0, 800, 600, 0]
    drawn = over.images[1]
    left, right, bottom, top = drawn.get_extent()
    values = drawn.get_array()
    rows, columns = np.nonzero(~values.mask)
    size = (right - left) / values.shape[1]
    assert (size, (bottom - top) / values.shape[0]) == (32, 32)
    assert (columns.min() * size, (columns.max() + 1) * size) == (128, 640)
    assert (rows.min() * size, (rows.max() + 1) * size) == (128, 448)
    assert over.get_xlim() == (0, 800)
    assert over.get_ylim() == (600, 0)
    assert drawn.cmap == colormaps["cividis"]
    assert figure._suptitle.get_text() == "case-1"
    assert "research use only" in [text.get_text() for text in figure.texts]


def test_write_slide_overlay_writes_a_signed_png(slide_and_map, tmp_path):
    path = write_slide_overlay(tmp_path / "out", "case-1", *slide_and_map)
    assert [file.name for file in path.parent.iterdir()] == ["case-1.png"]
    picture = Image.open(path)
    assert picture.text["Description"] == "research use only"
    assert min(picture.size) > 300


def test_slide_overlay_names_invalid_arguments(slide_and_map, tmp_path):
    thumbnail, heat = slide_and_map
    with pytest.raises(ValueError, match="`case_id` must be letters, digits"):
        write_slide_overlay(tmp_path, "../x", thumbnail, heat)
    with pytest.raises(ValueError, match=r"`heatmap` must be a map \(A, h, w\) of a slide with channel 3, got shape"):
        plot_slide_overlay(thumbnail, heat, 3)
    with pytest.raises(ValueError, match=r"`heatmap` must be a map"):
        plot_slide_overlay(thumbnail, torch.zeros(1, 4, 4))
