"""Tests of the benchmark of tiles, on a tiny slide."""

import numpy as np
import openslide
import pytest
import torch

from monai_mil_ext.data import SlideFile, SlideTiles
from tests.benchmarks import tile_reading
from tests.benchmarks.tile_reading import SIDES, corners, encoding, finding, rate, reading
from tests.make_slide import stained, write_mosaic

SQUARE = stained((512, 512), (40, 60, 400, 500))


@pytest.fixture
def path(tmp_path):
    return write_mosaic(tmp_path / "s.tif", SQUARE, (1300, 1100), factors=(1, 4))


def test_write_mosaic_repeats_the_square(path):
    with SlideFile(path) as slide:
        assert (slide.size, slide.mpp, slide.downsamples) == ((1300, 1100), 0.5, (1.0, 4.0))
        assert np.abs(slide.read(0, 512, 0, 512, 512).astype(int) - SQUARE).mean() < 3
        assert np.array_equal(slide.read(0, 512, 512, 512, 512), slide.read(0, 0, 0, 512, 512))
        small = SQUARE.reshape(128, 4, 128, 4, 3).mean(axis=(1, 3))
        assert np.abs(slide.read(1, 128, 128, 128, 128) - small).mean() < 3
        assert (slide.read(0, 1290, 1090, 20, 20)[10:] == 255).all()


def test_write_mosaic_of_a_slide_larger_than_memory_is_small(tmp_path):
    path = write_mosaic(tmp_path / "s.tif", SQUARE, (100_000, 100_000), factors=(1, 16, 64))
    assert path.stat().st_size < 2**22
    with SlideFile(path) as slide:
        image, downsample, _ = slide.thumbnail(1600)
        assert (image.shape, downsample) == ((1563, 1563, 3), pytest.approx(64, rel=1e-2))
        assert np.array_equal(slide.read(0, 99_840, 512, 100, 100), slide.read(0, 0, 0, 100, 100))


def test_sides_read_equal_tiles(path):
    tiles = SlideTiles(path, corners(path), 256, dtype=torch.uint8)
    with openslide.OpenSlide(path) as slide:
        for tile, (x, y) in zip(tiles, corners(path).tolist(), strict=True):
            expected = np.asarray(slide.read_region((x, y), 0, (256, 256)).convert("RGB"))
            assert np.array_equal(tile.permute(1, 2, 0).numpy(), expected)
    assert {side: sum(read(path)) for side, read in SIDES.items()} == dict.fromkeys(SIDES, 20)
    assert rate("bare", path) > 0


def test_rates_are_compared_in_pairs(monkeypatch):
    order = []
    monkeypatch.setattr(tile_reading, "real_square", lambda folder: SQUARE)
    monkeypatch.setattr(tile_reading, "LARGE", (1024, 1024))
    monkeypatch.setattr(tile_reading, "rate", lambda side, path: order.append(side) or {"bare": 2.0, "two": 3.0}[side])
    found = reading("two", repeats=6)
    assert " ".join(order[:6]) == "bare two two bare bare two"
    assert (found.value, found.interval, found.turns) == (1.5, (1.5, 1.5), 6)
    assert found.detail == {"bare_tiles_a_second": 2, "two_tiles_a_second": 3}


def test_encoding_finding_and_spread_are_measured(path, monkeypatch):
    monkeypatch.setattr(tile_reading, "real_square", lambda folder: SQUARE)
    monkeypatch.setattr(tile_reading, "LARGE", (1024, 1024))
    monkeypatch.setattr(tile_reading, "HUGE", (1024, 1024))
    encoded = encoding(num_workers=0, instances=4, repeats=2)
    assert 0 <= encoded.value < 1
    assert encoded.turns == 2
    grid = finding(repeats=1)
    assert grid.value > 0
    assert grid.detail["tiles"] > 4
    assert tile_reading.spread(path) > 2**20
