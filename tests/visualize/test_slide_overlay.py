"""Tests of the figure of a slide with its heat map."""

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image

from monai_mil_ext.data import SlideFile
from monai_mil_ext.transforms import TileScoresToHeatmap
from monai_mil_ext.visualize import plot_slide_overlay, write_slide_overlay
from tests.data.slides.containers import CORNERS, marked, write_scn
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


def scale_bar(figure):
    """Return the length in pixels of level 0 and the label of the scale bar."""
    (line,) = figure.axes[0].lines
    start, end = line.get_xdata()
    return end - start, [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize(
    ("mpp", "length", "label"), [(0.5, 200, "100 µm"), (5.0, 200, "1 mm"), (0.25, 200, "50 µm"), (12.5, 160, "2 mm")]
)
def test_plot_slide_overlay_has_a_scale_bar_of_a_round_length(slide_and_map, mpp, length, label):
    thumbnail, _ = slide_and_map
    heat = TileScoresToHeatmap(32)(np.ones(1), np.zeros((1, 2)), 128, (800, 600), mpp)
    assert scale_bar(plot_slide_overlay(thumbnail, heat)) == (pytest.approx(length), [label])


def test_plot_slide_overlay_has_no_scale_bar_without_a_resolution(slide_and_map):
    heat = TileScoresToHeatmap(32)(np.ones(1), np.zeros((1, 2)), 128, (800, 600))
    figure = plot_slide_overlay(slide_and_map[0], heat)
    assert not figure.axes[0].lines
    assert not figure.axes[0].texts


def test_plot_slide_overlay_draws_ratios_with_the_same_colors_for_every_slide(slide_and_map):
    coords = np.array([[128, 128], [512, 320]])
    for scores in ([0.5, 0.5], [0.2, 0.8]):
        heat = TileScoresToHeatmap(32, "ratio")(np.array(scores), coords, 128, (800, 600))
        figure = plot_slide_overlay(slide_and_map[0], heat)
        drawn, bar = figure.axes[1].images[1], figure.axes[-1]
        np.testing.assert_allclose(drawn.norm([0.25, 1.0, 4.0]), [0, 0.5, 1])
        assert bar.get_ylabel() == "attention, × uniform"
        assert [tick.get_text() for tick in bar.get_yticklabels()] == ["≤ 1/4", "1/2", "1", "2", "≥ 4"]


def test_plot_slide_overlay_of_a_slide_with_bounds_is_filled_by_the_slide(tmp_path):
    """OpenSlide reads the slide in a plane that is 62 times as large."""
    image = marked(stained((1024, 1280), (300, 300, 900, 900)))
    slide = SlideFile(write_scn(tmp_path / "s.scn", image))
    corner = np.array([[6000 + 300, 4000 + 300]])
    heat = TileScoresToHeatmap(50)(np.ones(1), corner, 100, slide.size, slide.mpp, slide.bounds)
    figure = plot_slide_overlay(slide.thumbnail(640), heat)
    left, right, lower, upper = 6000, 7280, 5024, 4000
    for ax in figure.axes[:2]:
        assert ax.images[0].get_extent() == [left, right, lower, upper]
    assert (figure.axes[1].get_xlim(), figure.axes[1].get_ylim()) == ((left, right), (lower, upper))
    drawn = figure.axes[1].images[1]
    rows, columns = np.nonzero(~drawn.get_array().mask)
    place = drawn.get_extent()
    assert (place[0] + 50 * columns.min(), place[3] + 50 * rows.min()) == (6300, 4300)
    pixels = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(pixels[:60, :60].mean(axis=(0, 1)), CORNERS["top left"], atol=2)
    np.testing.assert_allclose(pixels[-60:, -60:].mean(axis=(0, 1)), CORNERS["bottom right"], atol=2)


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


def test_plot_slide_overlay_draws_signed_contributions_around_zero(slide_and_map):
    coords = np.array([[128, 128], [512, 320]])
    heat = TileScoresToHeatmap(32, "signed")(np.array([-0.5, 2.0]), coords, 128, (800, 600))
    figure = plot_slide_overlay(slide_and_map[0], heat)
    drawn = figure.axes[1].images[1]
    assert (drawn.cmap, drawn.get_clim()) == (colormaps["coolwarm"], (-2.0, 2.0))
    assert figure.axes[-1].get_ylabel() == "contribution to the logit"
