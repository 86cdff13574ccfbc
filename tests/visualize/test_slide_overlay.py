"""The picture of a slide's answer."""

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
def answer(tmp_path):
    """A slide of 800 x 600 and a map of two tiles on it."""
    slide = SlideFile(write_slide(tmp_path / "s.tif", stained((600, 800), (100, 100, 700, 500))))
    coords = np.array([[128, 128], [512, 320]])
    return slide.thumbnail(400), TileScoresToHeatmap(32)(np.array([0.2, 0.8]), coords, 128, slide.size, slide.mpp)


def test_the_map_lies_over_the_slide_where_its_tiles_are(answer):
    thumbnail, heat = answer
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


def test_it_is_written_under_the_case_id_and_says_what_it_is_for(answer, tmp_path):
    path = write_slide_overlay(tmp_path / "out", "case-1", *answer)
    assert [file.name for file in path.parent.iterdir()] == ["case-1.png"]
    picture = Image.open(path)
    assert picture.text["Description"] == "research use only"
    assert min(picture.size) > 300


def test_a_bad_input_is_named(answer, tmp_path):
    thumbnail, heat = answer
    with pytest.raises(ValueError, match="`case_id` must be letters, digits"):
        write_slide_overlay(tmp_path, "../x", thumbnail, heat)
    with pytest.raises(ValueError, match=r"`heatmap` must be a map \(A, h, w\) of a slide with channel 3, got shape"):
        plot_slide_overlay(thumbnail, heat, 3)
    with pytest.raises(ValueError, match=r"`heatmap` must be a map"):
        plot_slide_overlay(thumbnail, torch.zeros(1, 4, 4))
