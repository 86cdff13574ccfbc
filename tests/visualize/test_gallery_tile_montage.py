"""Montage of the tiles with the highest and lowest scores."""

import numpy as np
import pytest
from PIL import Image

from monai_mil_ext.visualize import plot_tile_montage, write_tile_montage


def tiles(*values):
    return np.stack([np.full((8, 8, 3), value, dtype=np.uint8) for value in values])


def test_plot_tile_montage_draws_tiles_in_order_with_their_scores():
    top, bottom = tiles(*range(200, 210)), tiles(10, 11)
    figure = plot_tile_montage(top, bottom, np.linspace(0.9, 0.5, 10), np.array([0.01, 0.02]), "c1")
    drawn = [axes for axes in figure.axes if axes.images]
    assert [int(axes.images[0].get_array()[0, 0, 0]) for axes in drawn] == [*range(200, 210), 10, 11]
    assert [axes.texts[0].get_text() for axes in drawn][::11] == ["0.9", "0.02"]
    titles = [axes.get_title("left") for axes in figure.axes if axes.get_title("left")]
    assert titles == ["highest attention", "lowest attention"]


def test_write_tile_montage_of_a_single_tile(tmp_path):
    path = write_tile_montage(tmp_path, "c1", tiles(5), np.empty((0, 8, 8, 3), np.uint8), np.ones(1), np.empty(0))
    with Image.open(path) as image:
        assert image.info["Description"] == "research use only"
    assert path.name == "c1_tiles.png"


def test_plot_tile_montage_refuses_other_numbers_of_scores():
    with pytest.raises(ValueError, match="must be one for each tile, got 1 and 1 for 2 and 1"):
        plot_tile_montage(tiles(1, 2), tiles(3), np.ones(1), np.ones(1))
