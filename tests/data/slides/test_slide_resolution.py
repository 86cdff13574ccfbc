"""Tests of the resolution that slides state in different units."""

import numpy as np
import pytest
import tifffile

from monai_mil_ext.data import SlideFile, SlideFileError
from monai_mil_ext.data.slides.slide_resolution import aperio_value, ome_image
from tests.data.slides.containers import TILED, write_ome, write_qptiff, write_tiff
from tests.make_slide import stained, write_slide

IMAGE = stained((500, 700), (100, 100, 400, 400))


@pytest.mark.parametrize(
    ("value", "unit", "mpp"),
    [
        (0.25, "µm", 0.25),
        (0.25, "μm", 0.25),
        (250.0, "nm", 0.25),
        (0.00025, "mm", 0.25),
        (0.000025, "cm", 0.25),
        (2500.0, "Å", 0.25),
        (0.25, "pixel", None),
        (0.25, "reference frame", None),
        (30.0, "µm", None),
        (0.0, "µm", None),
    ],
)
def test_resolution_of_ome_by_unit(tmp_path, value, unit, mpp):
    slide = SlideFile(write_ome(tmp_path / "s.ome.tif", IMAGE, mpp=value, unit=unit))
    assert slide.mpp == (None if mpp is None else pytest.approx(mpp, rel=1e-6))


def test_resolution_of_ome_with_unequal_sides(tmp_path):
    path = write_ome(tmp_path / "s.ome.tif", IMAGE, mpp=0.25)
    path.write_bytes(path.read_bytes().replace(b'PhysicalSizeY="0.25"', b'PhysicalSizeY="0.50"'))
    message = r"must have square pixels, got 0.25 x 0.5 micrometers \(if this is wrong, give `slide_mpp`\)"
    with pytest.raises(SlideFileError, match=message) as error:
        SlideFile(path)
    assert error.value.option == "--slide_mpp MPP"
    assert error.value.facts == {"container": "OME-TIFF", "shape": (700, 500), "spacing": (0.25, 0.5)}
    assert SlideFile(path, mpp=0.25).mpp == 0.25


@pytest.mark.parametrize("reader", ["openslide", "tifffile"])
@pytest.mark.parametrize(("unit", "factor"), [("CENTIMETER", 1e4), ("INCH", 25_400), ("NONE", None)])
def test_resolution_of_tags_by_unit(tmp_path, reader, unit, factor):
    tags = {"resolution": ((factor or 1) / 0.5,) * 2, "resolutionunit": unit}
    tifffile.imwrite(tmp_path / "s.tif", IMAGE, **TILED, **tags)
    assert SlideFile(tmp_path / "s.tif", reader).mpp == (factor and pytest.approx(0.5, rel=1e-6))


def test_resolution_of_imagej(tmp_path):
    metadata = {"unit": "micron", "axes": "YXS"}
    tifffile.imwrite(tmp_path / "s.tif", IMAGE, imagej=True, resolution=(4, 4), metadata=metadata)
    slide = SlideFile(tmp_path / "s.tif")
    assert (slide.mpp, slide.container) == (0.25, "ImageJ TIFF")
    assert np.array_equal(slide.read(0, 0, 0, 700, 500), IMAGE)


def test_resolution_and_magnification_of_qptiff(tmp_path):
    slide = SlideFile(write_qptiff(tmp_path / "s.qptiff", IMAGE, 0.5))
    assert (slide.mpp, slide.magnification, slide.downsamples) == (pytest.approx(0.5), 20.0, (1.0, 2.0, 4.0))


@pytest.mark.parametrize("reader", ["openslide", "tifffile"])
def test_magnification_without_resolution(tmp_path, reader):
    about = "Aperio Image Library v12.0.15\r\n700x500 (256x256) RAW/RGB |AppMag = 40"
    slide = SlideFile(write_slide(tmp_path / "s.svs", IMAGE, mpp=None, levels=1, description=about), reader)
    assert (slide.mpp, slide.magnification, slide.container) == (None, 40.0, "Aperio SVS")


def test_aperio_value_of_no_number():
    assert aperio_value("Aperio |MPP = 0..5|AppMag = x", "MPP") is None
    assert aperio_value("Aperio |MPP = 0..5|AppMag = x", "AppMag") is None


OME = "<OME>{}</OME>".format("".join(f'<Pixels ID="{i}" SizeX="{x}" SizeY="9"/>' for i, x in enumerate((4, 7, 7))))


@pytest.mark.parametrize(
    ("index", "size", "expected"),
    [
        (1, (7, 9), "1"),
        (2, (7, 9), "2"),  # of two of one size, that of the index
        (0, (7, 9), "1"),  # that of the index is another image, since the order of pages may be another
        (9, (4, 9), "0"),
        (0, (9, 7), None),
    ],
)
def test_ome_image_has_the_size_of_the_slide(index, size, expected):
    pixels = ome_image(OME, index, size)
    assert (None if pixels is None else pixels.get("ID")) == expected


def test_ome_image_of_damaged_xml_is_none():
    assert ome_image("<OME><Pixels", 0, (7, 9)) is None


def test_resolution_of_a_printer_is_none(tmp_path):
    assert SlideFile(write_tiff(tmp_path / "s.tif", IMAGE, mpp=25_400 / 72)).mpp is None
