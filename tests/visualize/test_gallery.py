"""Tests of the gallery of cells and the montage of tiles, ordered by attention."""

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from monai_mil_ext.visualize import plot_cell_gallery, plot_tile_montage, write_cell_gallery, write_tile_montage


def bag(n=12, channels=3):
    cells = np.linspace(0, 1, n)[:, None, None, None] * np.ones((1, channels, 6, 5))
    attention = np.arange(n) % 7 + 1.0
    return cells, attention / attention.sum()


def image_axes(figure):
    return [axes for axes in figure.axes if axes.images]


@pytest.mark.parametrize("channels", [1, 3])
def test_plot_cell_gallery_shows_most_first_least_last_and_none_twice(channels):
    cells, attention = bag(channels=channels)
    axes = image_axes(plot_cell_gallery(cells, attention, [f"cell {i}" for i in range(12)], most=5, least=3))
    order = np.argsort(-attention, kind="stable")
    expected = [*order[:5], *order[-3:]]
    assert [ax.get_xlabel() for ax in axes] == [f"cell {i}" for i in expected]
    assert [ax.get_title() for ax in axes] == [f"{12 * attention[i]:.3g}" for i in expected]
    for ax, i in zip(axes, expected, strict=True):
        assert np.asarray(ax.images[0].get_array()).flat[0] == pytest.approx(cells[i].flat[0])
    assert [ax.get_ylabel() for ax in axes if ax.get_ylabel()] == ["most attention", "least attention"]


@pytest.mark.parametrize(
    ("n", "most", "least", "number"), [(3, 16, 8, 3), (12, 10, 8, 12), (12, 9, 0, 9), (1, 1, 1, 1)]
)
def test_plot_cell_gallery_shows_small_bags_completely(n, most, least, number):
    assert len(image_axes(plot_cell_gallery(*bag(n), most=most, least=least))) == number


def test_plot_cell_gallery_counts_all_cells_by_their_attention():
    cells, attention = np.zeros((12, 1, 4, 4)), np.array([6, 2, *[0.4] * 10])
    note = plot_cell_gallery(cells, attention / 12, most=3, least=2).get_supxlabel().replace("\n", " ")
    assert note == "5 of 12 cells; of all, 1 with at least 4 × uniform attention, 1 with 1 to 4, 10 with less"


def test_plot_cell_gallery_colors_frames_and_keeps_the_end_of_long_names():
    cells, attention = bag(3)
    axes = image_axes(plot_cell_gallery(cells, attention, ["a" * 20 + "_7.png", "b", "c"]))
    assert axes[-1].get_xlabel() == "…" + ("a" * 20 + "_7.png")[-17:]
    frames = [ax.spines["top"].get_edgecolor()[:3] for ax in axes]
    fractions = [np.log(4 * ratio) / np.log(16) for ratio in (1.5, 1.0, 0.5)]  # as in the heat map of a slide
    np.testing.assert_allclose(frames, colormaps["cividis"](fractions)[:, :3], atol=1 / 128)


def test_write_cell_gallery_writes_a_signed_png(tmp_path):
    path = write_cell_gallery(tmp_path, "case_1", *bag())
    assert path.name == "case_1_cells.png"
    assert Image.open(path).text["Description"] == "research use only"
    with pytest.raises(ValueError, match="`case_id` must be letters"):
        write_cell_gallery(tmp_path, "../case", *bag())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention": np.ones(3)}, r"`cells`, `attention` and `names` must have one length, got \[3, 12\]"),
        ({"names": ["a"]}, r"`cells`, `attention` and `names` must have one length, got \[1, 12\]"),
        ({"cells": np.ones((12, 2, 4, 4))}, r"`cells` must be \(N, 1, h, w\) or \(N, 3, h, w\) with a cell"),
        ({"most": 0}, "`most` must be a positive integer, got 0"),
    ],
)
def test_plot_cell_gallery_names_invalid_arguments(change, message):
    cells, attention = bag()
    with pytest.raises(ValueError, match=message):
        plot_cell_gallery(**{"cells": cells, "attention": attention, **change})


def tiles(*values):
    return np.stack([np.full((8, 8, 3), value, dtype=np.uint8) for value in values])


def test_plot_tile_montage_draws_tiles_in_order_with_their_ratios():
    top, bottom = tiles(*range(200, 210)), tiles(10, 11)
    figure = plot_tile_montage(top, bottom, np.linspace(9, 2, 10), np.array([0.001, 0.25]), "c1")
    drawn = [axes for axes in figure.axes if axes.images]
    assert [int(axes.images[0].get_array()[0, 0, 0]) for axes in drawn] == [*range(200, 210), 10, 11]
    assert [axes.texts[0].get_text() for axes in drawn][::5] == ["9", "5.11", "< 0.01"]
    assert drawn[-1].texts[0].get_text() == "0.25"
    frames = [axes.spines["top"].get_edgecolor()[:3] for axes in drawn]
    ends = colormaps["cividis"]([0.0, 1.0, 1.0])[:, :3]  # 1/4 or less, 4 or more
    np.testing.assert_allclose([frames[i] for i in (-1, 0, 1)], ends, atol=1 / 255)
    titles = [axes.get_title("left") for axes in figure.axes if axes.get_title("left")]
    assert titles == ["most attention, times uniform", "least attention, times uniform"]


def test_write_tile_montage_of_a_single_tile(tmp_path):
    path = write_tile_montage(tmp_path, "c1", tiles(5), np.empty((0, 8, 8, 3), np.uint8), np.ones(1), np.empty(0))
    with Image.open(path) as image:
        assert image.info["Description"] == "research use only"
    assert path.name == "c1_tiles.png"


def test_plot_tile_montage_refuses_other_numbers_of_ratios():
    with pytest.raises(ValueError, match="must be one for each tile, got 1 and 1 for 2 and 1"):
        plot_tile_montage(tiles(1, 2), tiles(3), np.ones(1), np.ones(1))


def test_plot_cell_gallery_says_that_attention_is_nearly_even():
    cells = np.zeros((4, 1, 8, 8))
    notes = [
        plot_cell_gallery(cells, np.array(weights)).get_supxlabel() for weights in ([0.25] * 4, [0.7, 0.1, 0.1, 0.1])
    ]
    assert [" ".join(note.split()).endswith("nearly even: the order of cells says little") for note in notes] == [
        True,
        False,
    ]
