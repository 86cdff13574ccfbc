"""Tests of TiffReader: regions, transparency, memory."""

import logging

import numpy as np
import pytest
import tifffile

from monai_mil_ext.data import SlideFile, SlideFileError
from monai_mil_ext.data.slides import tiff_reader
from monai_mil_ext.data.slides.tiff_reader import TiffReader
from tests.data.slides.containers import TILED, marked, write_ome, write_planar, write_tiff
from tests.make_slide import damage_tile, stained, write_slide

IMAGE = marked(stained((500, 700), (100, 100, 400, 400)))


@pytest.mark.parametrize("options", [{}, {"tile": None, "rowsperstrip": 33}, {"tile": None, "rowsperstrip": 500}])
def test_tiff_reader_decodes_what_a_region_needs(tmp_path, monkeypatch, options):
    reader = TiffReader(write_tiff(tmp_path / "s.tif", IMAGE, levels=1, **options))
    decoded = []
    decode = TiffReader._decode
    monkeypatch.setattr(TiffReader, "_decode", lambda self, page, k: decoded.append(k) or decode(self, page, k))
    assert np.array_equal(reader.read(0, 300, 280, 100, 60), IMAGE[280:340, 300:400])
    assert decoded == (
        [4] if not options else list(range(280 // options["rowsperstrip"], 339 // options["rowsperstrip"] + 1))
    )
    reader.read(0, 310, 290, 50, 50)
    assert len(decoded) == len(set(decoded))  # kept


def test_tiff_reader_keeps_a_limited_number_of_tiles(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff_reader, "CACHED", 256 * 256 * 3 * 2)
    reader = TiffReader(write_tiff(tmp_path / "s.tif", IMAGE))
    assert np.array_equal(reader.read(0, 0, 0, 700, 500), IMAGE)
    assert sum(tile.nbytes for tile in reader._cache.values()) <= tiff_reader.CACHED
    assert np.array_equal(reader.read(0, 0, 0, 700, 500), IMAGE)


def test_tiff_reader_of_planes_equals_that_of_pixels(tmp_path):
    reader = TiffReader(write_planar(tmp_path / "s.tif", IMAGE, 0.5))
    assert np.array_equal(reader.read(0, 200, 130, 400, 300), IMAGE[130:430, 200:600])


@pytest.mark.parametrize("kind", ["assocalpha", "unassalpha"])
def test_tiff_reader_blends_with_white(tmp_path, kind):
    alpha = np.full((500, 700, 1), 255, dtype=np.uint8)
    alpha[:, :200], alpha[:, 200:400] = 0, 128
    color = np.where(alpha == 0, 0, IMAGE)
    if kind == "assocalpha":
        color = np.round(color * (alpha / 255))
    path = write_slide(tmp_path / "s.tif", IMAGE)
    tifffile.imwrite(path, np.dstack([color, alpha]).astype(np.uint8), extrasamples=[kind], **TILED)
    region = TiffReader(path).read(0, 0, 0, 700, 500).astype(int)
    assert (region[:, :200] == 255).all()
    assert np.abs(region[:, 200:400] - (IMAGE[:, 200:400] * (128 / 255) + 127)).max() <= 1
    assert np.array_equal(region[:, 400:], IMAGE[:, 400:])


@pytest.mark.parametrize("tiled", [True, False])
def test_a_fourth_channel_that_is_no_alpha_is_left_out(tmp_path, tiled):
    image = np.dstack([IMAGE, np.zeros((500, 700, 1), np.uint8)])
    options = TILED if tiled else {"photometric": "rgb"}
    tifffile.imwrite(tmp_path / "s.tif", image, extrasamples=["unspecified"], **options)
    assert np.array_equal(SlideFile(tmp_path / "s.tif").read(0, 0, 0, 700, 500), IMAGE)


def test_tiff_reader_is_white_where_no_tile_is_stored(tmp_path):
    tiles = (None if k in (1, 3) else IMAGE[:256, :256] for k in range(6))
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, tiles, shape=(500, 700, 3), dtype=np.uint8, **TILED)
    region = TiffReader(path).read(0, 0, 0, 512, 256)
    assert np.array_equal(region[:, :256], IMAGE[:256, :256])
    assert (region[:, 256:] == 255).all()


def test_tiff_reader_refuses_a_strip_that_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff_reader, "SEGMENT", IMAGE.nbytes - 1)
    path = write_tiff(tmp_path / "s.tif", IMAGE, levels=1, tile=None, rowsperstrip=500)
    with pytest.raises(SlideFileError, match=r"strips of at most 1049999 bytes, got 1050000 \(convert it: vips"):
        SlideFile(path)
    assert SlideFile(write_tiff(tmp_path / "t.tif", IMAGE)).size == (700, 500)


def test_tiff_reader_logs_no_name_of_a_file(tmp_path, caplog):
    path = write_ome(tmp_path / "Miller.ome.tif", IMAGE)
    path.write_bytes(path.read_bytes().replace(b"</Pixels>", b"</Pixell>"))
    with caplog.at_level(logging.DEBUG):
        slide = SlideFile(path)
        slide.read(0, 0, 0, 700, 500)
    assert "Miller" not in caplog.text
    assert slide.mpp is None


def test_tiff_reader_reads_other_tiles_after_a_damaged_one(tmp_path):
    slide = SlideFile(damage_tile(write_ome(tmp_path / "s.ome.tif", IMAGE), 4))
    with pytest.raises(SlideFileError, match=r"be readable at level 0, x 300, y 260, got \w+"):
        slide.read(0, 300, 260, 10, 10)
    assert np.array_equal(slide.read(0, 0, 0, 99, 99), IMAGE[:99, :99])
