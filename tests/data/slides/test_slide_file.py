"""Tests of SlideFile: regions, thumbnails and resolution."""

import gc
import warnings

import numpy as np
import pytest

from monai_mil_ext.data import SlideFile, SlideFileError, TileGrid
from monai_mil_ext.transforms import TileBag
from tests.data.slides.containers import CORNERS, marked, write_scn
from tests.make_slide import damage_tile, stained, write_slide, write_truncated

IMAGE = stained((700, 900), (100, 60, 700, 500))
APERIO = "Aperio Image Library v12 |AppMag = 20|MPP = 0.4990|Filename = CASE-7"


@pytest.fixture
def slide_path(tmp_path):
    return write_slide(tmp_path / "slide.tif", IMAGE)


@pytest.mark.parametrize("reader", ["openslide", "tifffile"])
def test_slide_file_reads_the_pixels_of_a_region(slide_path, reader):
    slide = SlideFile(slide_path, reader)
    assert slide.size == (900, 700)
    assert slide.mpp == 0.5
    assert slide.downsamples == (1.0, 2.0, 4.0)
    assert np.array_equal(slide.read(0, 130, 40, 300, 200), IMAGE[40:240, 130:430])


def test_slide_file_reads_levels_in_their_pixels(slide_path):
    slide = SlideFile(slide_path)
    assert slide.downsamples == (1.0, 2.0, 4.0)
    assert slide.level_size(1) == (450, 350)
    mean = IMAGE.reshape(350, 2, 450, 2, 3).mean(axis=(1, 3)).round().astype(np.uint8)
    assert np.array_equal(slide.read(1, 31, 17, 200, 100), mean[17:117, 31:231])


@pytest.mark.parametrize("reader", ["openslide", "tifffile"])
def test_slide_file_is_white_outside(slide_path, reader):
    slide = SlideFile(slide_path, reader)
    region = slide.read(0, -10, 690, 30, 20)
    assert np.array_equal(region[:10, 10:], IMAGE[690:, :20])
    assert (region[10:] == 255).all()
    assert (region[:, :10] == 255).all()
    assert (slide.read(0, 5000, 5000, 4, 3) == 255).all()


def test_slide_file_is_white_where_transparent(tmp_path):
    alpha = np.full((700, 900, 1), 255, dtype=np.uint8)
    alpha[:, :300], alpha[:, 300:600] = 0, 128
    slide = SlideFile(write_slide(tmp_path / "s.tif", np.dstack([IMAGE, alpha])))
    region = slide.read(0, 0, 0, 900, 700).astype(int)
    assert (region[:, :300] == 255).all()
    assert np.array_equal(region[:, 600:], IMAGE[:, 600:])
    # OpenSlide input_spec premultiplied colors, the default of TIFF
    assert region[:, 300:600].min() > 100


@pytest.mark.parametrize("levels", [1, 3])
def test_slide_file_thumbnail_is_the_mean_of_squares(tmp_path, levels):
    slide = SlideFile(write_slide(tmp_path / "s.tif", IMAGE, levels=levels))
    image, downsample, origin = slide.thumbnail(100)
    assert origin == (0.0, 0.0)
    assert downsample == (9.0 if levels == 1 else 12.0)
    assert image.shape == (-(-700 // int(downsample)), 900 // int(downsample), 3)
    side = int(downsample)
    square = IMAGE[5 * side : 6 * side, 20 * side : 21 * side].mean(axis=(0, 1))
    assert np.abs(image[5, 20] - square).max() <= 1.0


@pytest.mark.parametrize(("max_size", "downsample"), [(2000, 1.0), (300, 4.0), (90, 12.0)])
def test_slide_file_thumbnail_shows_the_bounds(tmp_path, max_size, downsample):
    image = marked(stained((700, 1000), (200, 200, 800, 500)))
    slide = SlideFile(write_scn(tmp_path / "s.scn", image, offset=(6_001, 4_003)))
    assert (slide.size, slide.bounds, slide.mpp) == ((10_000, 8_000), (6_001, 4_003, 1_000, 700), pytest.approx(0.5))
    thumbnail = slide.thumbnail(max_size)
    assert (thumbnail.downsample, max(thumbnail.image.shape) <= max_size) == (downsample, True)
    assert max(np.abs(np.subtract(thumbnail.origin, (6_001, 4_003)))) < 2  # a pixel of the second level
    corners = [thumbnail.image[row, column] for row in (1, -2) for column in (1, -2)]
    assert np.abs(np.subtract(corners, list(CORNERS.values()))).max() <= 1


def test_slide_file_bounds_do_not_displace_tissue(tmp_path):
    image = stained((1024, 1280), (256, 256, 768, 512))
    tiles = TileBag(TileGrid(256))(write_scn(tmp_path / "s.scn", image, offset=(5_120, 3_840)))
    assert tiles.coords.tolist() == [[5_376, 4_096], [5_632, 4_096]]


@pytest.mark.parametrize(
    ("stated", "bounds"),
    [
        ((10, 20, 300, 400), (10, 20, 300, 400)),
        ((-5, 600, 100, 400), (0, 600, 95, 100)),
        ((900, 0, 10, 10), (0, 0, 900, 700)),
        ((0, 0, 0, 0), (0, 0, 900, 700)),
        ((1.5, 0, 10, 10), (0, 0, 900, 700)),
    ],
)
def test_slide_file_bounds_lie_in_the_slide(slide_path, monkeypatch, stated, bounds):
    names = [f"openslide.bounds-{name}" for name in ("x", "y", "width", "height")]
    properties = dict(zip(names, map(str, stated), strict=True))
    monkeypatch.setattr("openslide.OpenSlide.properties", properties, raising=False)
    monkeypatch.setattr("monai.data.WSIReader.get_mpp", lambda *_: (0.5, 0.5))
    assert SlideFile(slide_path).bounds == bounds


def test_slide_file_thumbnail_has_no_seams(tmp_path, monkeypatch):
    slide = SlideFile(write_slide(tmp_path / "s.tif", IMAGE, levels=1))
    whole = slide.thumbnail(300).image
    monkeypatch.setattr("monai_mil_ext.data.slides.slide_file.BLOCK", 64)
    assert np.array_equal(slide.thumbnail(300).image, whole)
    assert SlideFile(slide.path).thumbnail(5000).downsample == 1.0


def test_slide_file_finds_the_resolution_of_aperio_with_tifffile(tmp_path):
    slide = SlideFile(write_slide(tmp_path / "s.tif", IMAGE, mpp=None, description=APERIO), "tifffile")
    assert (slide.mpp, slide.magnification) == (0.499, 20.0)


@pytest.mark.parametrize("reader", ["openslide", "tifffile"])
def test_slide_file_closes(tmp_path, slide_path, reader):
    with SlideFile(slide_path, reader) as slide:
        slide.read(0, 0, 0, 9, 9)
    with pytest.raises(ValueError, match=r"`slide` must be open, got one that was closed"):
        slide.read(0, 0, 0, 9, 9)
    assert slide.size == (900, 700)
    slide.close()
    strange = write_slide(tmp_path / "s.tif", IMAGE.astype(np.float32))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        SlideFile(slide_path, reader)
        with pytest.raises(ValueError, match="`slide` must be open"):
            slide.read(0, 0, 0, 9, 9)
        for path in (strange, tmp_path / "gone.tif"):
            with pytest.raises((SlideFileError, FileNotFoundError), match="`slide` must"):
                SlideFile(path, "tifffile")
        gc.collect()
    left = [str(w.message) for w in caught if w.category is ResourceWarning]
    assert [text for text in left if "TemporaryDirectory" not in text] == []  # of an earlier test


@pytest.mark.parametrize("reader", ["openslide", "tifffile"])
def test_slide_file_without_resolution(tmp_path, reader):
    path = write_slide(tmp_path / "s.tif", IMAGE, mpp=None)
    slide = SlideFile(path, reader)
    assert (slide.mpp, slide.magnification) == (None, None)
    assert SlideFile(path, reader, mpp=0.25, magnification=40).mpp == 0.25
    printers = SlideFile(write_slide(tmp_path / "p.tif", IMAGE, mpp=25_400 / 72), reader)
    assert printers.mpp is None  # 72 dots an inch


def test_slide_file_ignores_a_resolution_without_unit(slide_path, monkeypatch):
    def guess(*args):
        warnings.warn("The resolution unit is missing, `micrometer` will be used as default.", stacklevel=1)
        return 0.014, 0.014

    monkeypatch.setattr("monai.data.WSIReader.get_mpp", guess)
    assert SlideFile(slide_path).mpp is None


def test_slide_file_refuses_pixels_that_are_not_square(slide_path, monkeypatch):
    monkeypatch.setattr("monai.data.WSIReader.get_mpp", lambda *args: (0.5, 0.51))
    with pytest.raises(SlideFileError, match=r"square pixels, got 0.5 x 0.51 micrometers \(if this is wrong, give"):
        SlideFile(slide_path)
    assert SlideFile(slide_path, mpp=0.5).mpp == 0.5


def test_slide_file_with_a_name_in_any_script(tmp_path):
    slide = SlideFile(write_slide(tmp_path / "Präparat Ω 組織.tif", IMAGE))
    assert np.array_equal(slide.read(0, 0, 0, 9, 9), IMAGE[:9, :9])


@pytest.mark.parametrize("reader", ["openslide", "tifffile"])
def test_slide_file_of_sixteen_bits(tmp_path, reader):
    path = write_slide(tmp_path / "s.tif", IMAGE.astype(np.uint16) * 256 + 77)
    wanted = np.round((IMAGE[40:139, 130:229].astype(float) * 256 + 77) / 257)
    assert np.abs(SlideFile(path, reader).read(0, 130, 40, 99, 99) - wanted).max() <= 1


@pytest.mark.parametrize("reader", ["openslide", "tifffile"])
def test_slide_file_with_a_damaged_region(tmp_path, reader):
    slide = SlideFile(damage_tile(write_slide(tmp_path / "s.tif", IMAGE), 5), reader)  # x from 256, y from 256
    with pytest.raises(
        SlideFileError, match=r"`slide` must be readable at level 0, x 300, y 260, got \w+Error"
    ) as error:
        slide.read(0, 300, 260, 10, 10)
    facts = {"container": "generic TIFF", "shape": slide.size, "spacing": (slide.mpp, slide.mpp)}
    assert error.value.facts == facts
    assert np.array_equal(slide.read(0, 0, 0, 99, 99), IMAGE[:99, :99])


def test_slide_file_errors_contain_no_name(tmp_path):
    folder = tmp_path / "Miller, Jane"
    folder.mkdir()
    (folder / "Miller.svs").write_text("no slide")
    cut = write_truncated(folder / "Miller.tif", IMAGE)
    for path in (folder / "Miller.svs", cut, folder):
        with pytest.raises(SlideFileError, match="`slide` must be") as error:
            SlideFile(path)
        assert "Miller" not in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"`slide` must be a file that exists, got none\.$"):
        SlideFile(folder / "gone.tif")


def test_slide_file_errors_state_what_is_known(tmp_path, slide_path):
    error = SlideFile(slide_path).error("`slide` must fit.", "--slide_mpp 1")
    assert (error.option, error.facts) == (
        "--slide_mpp 1",
        {"container": "generic TIFF", "shape": (900, 700), "spacing": (0.5, 0.5)},
    )


def test_slide_file_prefers_a_given_resolution_and_says_so(tmp_path, slide_path):
    slide = SlideFile(slide_path, mpp=0.25, magnification=40)
    assert (slide.mpp, slide.magnification) == (0.25, 40.0)
    assert slide.notes == ["0.25 micrometers per pixel were given; the file states 0.5."]
    assert SlideFile(slide_path, mpp=0.5, magnification=40).notes == []
    assert SlideFile(slide_path, magnification=40).mpp == 0.5
    without = SlideFile(write_slide(tmp_path / "s.tif", IMAGE, mpp=None), magnification=40)
    assert without.mpp == 0.25
    assert without.notes == ["0.25 micrometers per pixel follow from the given magnification 40."]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reader": "openslid"}, "`reader` must be one of .*did you mean 'openslide'"),
        ({"mpp": 0.0}, "`mpp` must be positive and finite, got 0.0"),
        ({"magnification": float("nan")}, "`magnification` must be positive and finite, got nan"),
    ],
)
def test_slide_file_refuses_invalid_options(slide_path, options, message):
    with pytest.raises(ValueError, match=message):
        SlideFile(slide_path, **options)
