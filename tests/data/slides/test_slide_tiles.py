"""Tests of SlideTiles: a bag of tiles that are read on access."""

import gc
import pickle
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from monai_mil_ext.data import SlideFileError, SlideTiles
from monai_mil_ext.inferers import BagInferer
from monai_mil_ext.networks.nets import ABMIL, EncodedBag
from tests.make_slide import damage_tile, stained, write_slide

COORDS = np.array([[0, 0], [130, 40], [700, 500], [64, 128]])


def waves(x, y):
    return np.stack([128 + 90 * np.sin(x / 40 + k) * np.cos(y / 55) for k in range(3)], axis=-1)


def smooth(size=(700, 900)):
    """Write a slide without noise, whose resampled pixels are known from theory."""
    y, x = np.mgrid[: size[0], : size[1]]
    return waves(x, y).round().astype(np.uint8)


IMAGE = smooth()


@pytest.fixture
def path(tmp_path):
    return write_slide(tmp_path / "slide.tif", IMAGE)


def test_slide_tiles_equal_the_pixels_of_level_0(path):
    tiles = SlideTiles(path, COORDS, 64, dtype=torch.uint8)
    assert len(tiles) == 4
    for tile, (x, y) in zip(tiles, COORDS, strict=True):
        assert np.array_equal(tile.permute(1, 2, 0).numpy(), IMAGE[y : y + 64, x : x + 64])


def test_slide_tiles_equal_the_pixels_of_a_level(path):
    tile = SlideTiles(path, COORDS, 32, 4.0, dtype=torch.uint8)[3]
    blocks = IMAGE.reshape(350, 2, 450, 2, 3).mean(axis=(1, 3)).round()
    blocks = blocks.reshape(175, 2, 225, 2, 3).mean(axis=(1, 3)).round()
    assert np.array_equal(tile.permute(1, 2, 0).numpy(), blocks[32:64, 16:48])


@pytest.mark.parametrize("scale", [0.9, 1.002004, 1.5, 2.2, 3.7, 5.3])
def test_slide_tiles_resampling_is_accurate(path, scale):
    """The slide consists of waves, which a symmetric filter only attenuates, by the square of its width."""
    tile = SlideTiles(path, COORDS, 50, scale)[1].permute(1, 2, 0).numpy() * 255
    x = 130 + (np.arange(50) + 0.5) * scale - 0.5
    y = (40 + (np.arange(50) + 0.5) * scale - 0.5)[:, None]
    flat = (1 / 40**2 + 1 / 55**2) / 2 * (max(scale, 1) ** 2 / 6 + 1)  # variance of the triangle and of earlier levels
    rounded = 2.5  # half of the slide, of two levels and of both axes of the resampling
    assert np.abs(tile - waves(x, y)).max() < rounded + 90 * flat
    error = np.abs(tile - waves(x, y)).mean()
    for step in (-0.25, 0.25):  # pixels of level 0
        assert error < np.abs(tile - waves(x + step, y)).mean()
        assert error < np.abs(tile - waves(x, y + step)).mean()


@pytest.mark.parametrize("size", [20, 40, 48])
def test_slide_tiles_have_no_seam(tmp_path, size):
    """Adjacent tiles equal the resampled whole slide, even where it is not smooth."""
    noise = np.random.default_rng(0).integers(0, 256, size=(180, 240, 3), dtype=np.uint8)
    path = write_slide(tmp_path / "noise.tif", noise, levels=1)
    y, x = np.mgrid[0:180:60, 0:240:60]
    tiles = SlideTiles(path, np.stack([x.ravel(), y.ravel()], axis=1), size, 60 / size, dtype=torch.uint8)
    whole = np.asarray(Image.fromarray(noise).resize((4 * size, 3 * size), Image.Resampling.BILINEAR)).astype(int)
    rows = tiles[:].permute(0, 2, 3, 1).view(3, 4, size, size, 3).transpose(1, 2).reshape(3 * size, 4 * size, 3)
    assert np.abs(rows.numpy() - whole).max() <= 1


def test_slide_tiles_do_not_fade_at_the_edge(path):
    tile = SlideTiles(path, np.array([[840, 640]]), 40, 1.5, dtype=torch.uint8)[0]
    whole = Image.fromarray(IMAGE).resize((40, 40), Image.Resampling.BILINEAR, (840, 640, 900, 700))
    assert np.abs(tile.permute(1, 2, 0).numpy().astype(int) - np.asarray(whole)).max() <= 1


def test_slide_tiles_are_white_beyond_the_slide(path):
    tile = SlideTiles(path, np.array([[800, 600]]), 150, 2.0, dtype=torch.uint8)[0]
    assert (tile[:, 52:] == 255).all()
    assert (tile[:, :, 52:] == 255).all()
    assert tile[:, :48, :48].float().mean() < 200


def test_slide_tiles_indexing(path):
    tiles = SlideTiles(path, COORDS, 64)
    assert tiles[0].dtype == torch.float32
    assert float(tiles[1].max()) <= 1
    assert torch.equal(tiles[1:3], torch.stack([tiles[1], tiles[2]]))
    assert torch.equal(tiles[-1], tiles[3])
    assert tiles[2:2].shape == (0, 3, 64, 64)
    part = tiles[np.array([3, 1])]
    assert isinstance(part, SlideTiles)
    assert torch.equal(part[0], tiles[3])
    assert part == SlideTiles(path, COORDS[[3, 1]], 64)
    assert part != tiles
    assert tiles != SlideTiles(path, COORDS, 64, dtype=torch.uint8)
    with pytest.raises(IndexError, match="out of bounds"):
        tiles[4]


def test_slide_tiles_in_workers(path):
    tiles = SlideTiles(path, np.tile(COORDS, (6, 1)), 64, 1.5)
    alone = tiles[:]  # the slide is open here when the workers are forked
    loaded = torch.cat(list(DataLoader(tiles, batch_size=5, num_workers=2)))
    assert torch.equal(loaded, alone)
    assert torch.equal(pickle.loads(pickle.dumps(tiles))[:], alone)  # noqa: S301


def test_slide_tiles_close_the_file(path, capfd):
    """Neither in this process nor in workers, which would report it on standard error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        tiles = SlideTiles(path, COORDS, 64, 1.5, reader="tifffile")
        first = tiles[0]
        assert torch.equal(pickle.loads(pickle.dumps(tiles))[0], first)  # noqa: S301
        assert torch.equal(next(iter(DataLoader(tiles, num_workers=1)))[0], first)
        tiles.close()
        assert torch.equal(tiles[0], first)
        del tiles
        gc.collect()
    assert [str(w.message) for w in caught if w.category is ResourceWarning] == []
    assert "ResourceWarning" not in capfd.readouterr().err


def test_slide_tiles_open_the_slide_again_after_a_fork(path, monkeypatch):
    tiles = SlideTiles(path, COORDS, 64)
    first = tiles[0]
    handle = tiles._slide
    assert torch.equal(tiles[0], first)
    assert tiles._slide is handle
    monkeypatch.setattr("monai_mil_ext.data.slides.slide_tiles.os.getpid", lambda: -7)
    assert torch.equal(tiles[0], first)
    assert tiles._slide is not handle


def test_slide_tiles_are_read_by_chunk_in_bag_inferer(path, monkeypatch):
    tiles = SlideTiles(path, np.tile(COORDS, (4, 1)), 16)
    encoder = nn.Sequential(nn.Conv2d(3, 4, 5), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net = EncodedBag(encoder, ABMIL(in_features=4, num_classes=2)).eval()
    with torch.no_grad():
        expected = net(tiles[:].unsqueeze(0))
        sizes, read = [], SlideTiles.__getitem__
        monkeypatch.setattr(
            SlideTiles, "__getitem__", lambda self, k: (sizes.append(k), read(self, k))[1], raising=True
        )
        assert torch.allclose(BagInferer(chunk_size=3)(tiles, net), expected, atol=1e-6)
    assert max(k.stop - k.start for k in sizes if isinstance(k, slice)) == 3


def test_slide_tiles_name_a_damaged_tile(tmp_path):
    path = damage_tile(write_slide(tmp_path / "s.tif", stained((700, 900), (0, 0, 900, 700))), 5)
    tiles = SlideTiles(path, np.array([[300, 300], [0, 0], [950, 0]]), 32, 1.5)
    with pytest.raises(SlideFileError, match=r"`slide` must be readable at level 0"):
        tiles[0]
    assert float(tiles[1].mean()) < 0.8
    with pytest.raises(SlideFileError, match=r"`coords` must lie in the slide, got \(950, 0\) for \(900, 700\)"):
        tiles[2]


def test_slide_tiles_repr_contains_no_path(path):
    assert repr(SlideTiles(path, COORDS, 64)) == "SlideTiles(4 tiles of 64 pixels)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coords": COORDS[0]}, r"`coords` must have shape \(N, 2\), got \(2,\)"),
        ({"tile_size": 0}, "`tile_size` must be a positive integer"),
        ({"scale": 0.0}, "`scale` must be positive and finite, got 0.0"),
        ({"dtype": torch.int64}, "`dtype` must be torch.uint8 or a floating type, got torch.int64"),
        ({"reader": "pil"}, "`reader` must be one of"),
    ],
)
def test_slide_tiles_refuse_invalid_options(options, message):
    with pytest.raises(ValueError, match=message):
        SlideTiles("s.tif", **{"coords": COORDS, "tile_size": 8, **options})
