"""Tests of the readers of slides: the same slide in every container."""

import numpy as np
import pytest

from monai_mil_ext.data import SlideFile, SlideFileError, TileGrid
from monai_mil_ext.data.slides.slide_readers import open_reader
from monai_mil_ext.transforms import TileBag
from tests.data.slides.containers import CONTAINERS, CORNERS, SIDE, marked, write_aperio, write_tiff
from tests.make_slide import levels_of, stained, write_slide

IMAGE = marked(stained((700, 1000), (200, 200, 800, 500)))
MPP = 0.4
BY_TIFFFILE = "The file was read by tifffile, since OpenSlide does not open it."
NAMES = {"QPTIFF": "Akoya QPTIFF", "DICOM": "DICOM WSI", "Aperio SVS": "Aperio SVS", "Leica SCN": "Leica SCN"}


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_has_the_same_pixels(tmp_path, name):
    file, write = CONTAINERS[name]
    slide = SlideFile(write(tmp_path / file, IMAGE, MPP))
    x, y, width, height = slide.bounds
    kind = NAMES.get(name, "OME-TIFF" if name.startswith("OME") else "generic TIFF")
    assert (width, height, slide.container) == (1000, 700, kind)
    assert slide.mpp == pytest.approx(MPP, rel=1e-4)
    assert np.array_equal(slide.read(0, x, y, width, height), IMAGE)
    assert np.array_equal(slide.read(0, x + 200, y + 300, 333, 77), IMAGE[300:377, 200:533])
    corners = [slide.read(0, x + left, y + top, 10, 10)[5, 5] for top in (SIDE - 10, 690) for left in (SIDE - 10, 990)]
    assert np.array_equal(corners, list(CORNERS.values()))
    if x == 0:  # a region that starts at an odd pixel is displaced by half a pixel in the next level
        for level, image in enumerate(levels_of(IMAGE, len(slide.downsamples))):
            assert np.abs(slide.read(level, 0, 0, *image.shape[1::-1]).astype(int) - image).max() <= 1


@pytest.mark.parametrize("name", sorted(CONTAINERS.keys() - {"Leica SCN"}))
def test_every_container_gives_the_same_tiles(tmp_path, name):
    grid = TileGrid(128, mpp=MPP, edge="pad")
    reference = TileBag(grid, tissue=False)(write_slide(tmp_path / "reference.tif", IMAGE, mpp=MPP))
    file, write = CONTAINERS[name]
    tiles = TileBag(grid, tissue=False)(write(tmp_path / file, IMAGE, MPP))
    assert np.array_equal(tiles.coords, reference.coords)
    assert np.array_equal(np.stack(list(tiles.bag)), np.stack(list(reference.bag)))


@pytest.mark.parametrize("compression", ["webp", "lzma", "jpegxl", "png"])
def test_open_reader_leaves_compressions_that_openslide_lacks_to_tifffile(tmp_path, compression):
    reader = open_reader(write_tiff(tmp_path / "s.tif", IMAGE, compression=compression), "openslide")
    assert reader.notes == [BY_TIFFFILE]
    assert np.array_equal(reader.read(0, 0, 0, 1000, 700), IMAGE)
    assert len(reader.sizes) == 3


def test_open_reader_leaves_no_damaged_slide_of_a_scanner_to_tifffile(tmp_path):
    path = write_aperio(tmp_path / "s.svs", IMAGE)
    path.write_bytes(path.read_bytes()[:-5_000])
    with pytest.raises(SlideFileError, match="a slide that can be read, got a TIFF file that is cut off"):
        SlideFile(path)


@pytest.mark.parametrize(
    ("stated", "bounds"),
    [
        ((10, 20, 300, 400), (10, 20, 300, 400)),
        ((-5, 600, 100, 400), (0, 600, 95, 100)),
        ((1000, 0, 10, 10), (0, 0, 1000, 700)),
        ((0, 0, 0, 0), (0, 0, 1000, 700)),
        ((1.5, 0, 10, 10), (0, 0, 1000, 700)),
        ((5, 5), (0, 0, 1000, 700)),
    ],
)
def test_bounds_lie_in_the_slide(tmp_path, monkeypatch, stated, bounds):
    names = [f"openslide.bounds-{name}" for name in ("x", "y", "width", "height")]
    properties = dict(zip(names, map(str, stated), strict=False))
    monkeypatch.setattr("openslide.OpenSlide.properties", properties, raising=False)
    assert open_reader(write_slide(tmp_path / "s.tif", IMAGE), "openslide").bounds == bounds
