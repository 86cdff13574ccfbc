"""Tests of what is the slide in a TIFF file, and of what is refused."""

import numpy as np
import pytest
import tifffile

from monai_mil_ext.data import SlideFile, SlideFileError
from tests.data.slides.containers import TILED, marked, write_ome
from tests.make_slide import stained

IMAGE = marked(stained((500, 700), (100, 100, 400, 400)))
UNNAMED = "The three channels, which have no names, were read as red, green and blue."
PURE = [-16776961, 16711935, 65535]  # red, green and blue as OME-XML writes them


def write_pages(path, pages, **options):
    with tifffile.TiffWriter(path) as file:
        for page in pages:
            file.write(page, **(TILED | options))
    return path


@pytest.mark.parametrize(
    ("channel", "order", "notes"),
    [
        ({"Name": ["Red", "Green", "Blue"]}, [0, 1, 2], []),
        ({"Name": ["B", "G", "R"]}, [2, 1, 0], []),
        ({"Color": PURE}, [0, 1, 2], []),
        ({"Color": PURE[::-1]}, [2, 1, 0], []),
        ({"Name": ["Channel 1", "Channel 2", "Channel 3"]}, [0, 1, 2], [UNNAMED]),
        ({"Name": ["Channel:0:0", "Channel:0:1", "Channel:0:2"]}, [0, 1, 2], [UNNAMED]),
        (None, [0, 1, 2], [UNNAMED]),
    ],
)
def test_channels_apart_are_read_in_the_order_of_their_colors(tmp_path, channel, order, notes):
    slide = SlideFile(write_ome(tmp_path / "s.ome.tif", IMAGE[..., order], planes=True, channel=channel))
    assert np.array_equal(slide.read(0, 0, 0, 700, 500), IMAGE)
    assert (slide.notes, len(slide.downsamples)) == (notes, 3)


@pytest.mark.parametrize(
    ("channels", "channel", "message"),
    [
        (3, {"Name": ["DAPI", "FITC", "Cy5"]}, "3 channels apart, as of fluorescence"),
        (3, {"EmissionWavelength": [450, 520, 600]}, "3 channels apart, as of fluorescence"),
        (3, {"Fluor": ["a", "b", "c"]}, "3 channels apart, as of fluorescence"),
        (5, None, "5 channels apart, as of fluorescence"),
        (1, None, "1 channel in gray"),
    ],
)
def test_fluorescence_is_refused(tmp_path, channels, channel, message):
    image = np.dstack([IMAGE, IMAGE])[..., :channels]
    with pytest.raises(SlideFileError, match=f"a brightfield image in RGB, got {message}") as error:
        SlideFile(write_ome(tmp_path / "s.ome.tif", image, planes=True, channel=channel))
    assert error.value.facts == {"container": "OME-TIFF", "shape": (700, 500)}


def test_fluorescence_in_qptiff_is_refused(tmp_path):
    pages = [IMAGE[..., 0], IMAGE[..., 1], IMAGE[..., 2]]
    path = write_pages(tmp_path / "s.qptiff", pages, photometric="minisblack", software="PerkinElmer-QPI")
    with pytest.raises(SlideFileError, match="brightfield image in RGB, got 3 channels apart, as of fluorescence"):
        SlideFile(path)


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("gray", [False, True])
def test_a_stack_is_refused(tmp_path, count, gray):
    options = {"photometric": "minisblack"} if gray else {}
    path = write_pages(tmp_path / "s.tif", [IMAGE[..., 0] if gray else IMAGE] * count, **options)
    with pytest.raises(SlideFileError, match=f"must have one plane, got {count} images of the same size"):
        SlideFile(path)


@pytest.mark.parametrize("axes", ["ZYXS", "TYXS"])
def test_a_stack_in_ome_is_refused(tmp_path, axes):
    tifffile.imwrite(tmp_path / "s.tif", np.stack([IMAGE] * 3), ome=True, photometric="rgb", metadata={"axes": axes})
    with pytest.raises(SlideFileError, match="one plane, got 3 images of the same size"):
        SlideFile(tmp_path / "s.tif")


def test_the_largest_of_several_images_is_read_and_noted(tmp_path):
    slide = SlideFile(write_ome(tmp_path / "s.ome.tif", IMAGE, mpp=0.3, others=2))
    assert (slide.size, slide.mpp, len(slide.downsamples)) == ((700, 500), pytest.approx(0.3), 3)
    assert "The file has 3 images (400 x 300, 400 x 299, 700 x 500), of which the largest was read." in slide.notes
    assert np.array_equal(slide.read(0, 0, 0, 700, 500), IMAGE)


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_a_file_of_several_is_read_by_itself(tmp_path, order):
    pixels = [
        f'<Image ID="Image:{k}"><Pixels DimensionOrder="XYCZT" ID="Pixels:{k}" Type="uint8" SizeX="{700 + 100 * k}" '
        f'SizeY="500" SizeC="3" SizeZ="1" SizeT="1" PhysicalSizeX="0.25" PhysicalSizeY="0.25">'
        '<Channel SamplesPerPixel="3"/>'
        f'<TiffData IFD="0" PlaneCount="1"><UUID FileName="{name}">urn:uuid:{k}</UUID></TiffData></Pixels></Image>'
        for k, name in enumerate(["s.ome.tif", "other.ome.tif"])
    ]
    names = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:0"'
    xml = f"<OME {names}>{pixels[order[0]]}{pixels[order[1]]}</OME>"
    tifffile.imwrite(tmp_path / "s.ome.tif", IMAGE, description=xml, **TILED)
    larger = np.zeros((500, 800, 3), np.uint8)
    tifffile.imwrite(
        tmp_path / "other.ome.tif", larger, description=xml.replace('UUID="urn:uuid:0', 'UUID="urn:uuid:1'), **TILED
    )
    slide = SlideFile(tmp_path / "s.ome.tif")
    assert (slide.mpp, slide.container) == (0.25, "OME-TIFF")
    assert np.array_equal(slide.read(0, 0, 0, 700, 500), IMAGE)


def test_levels_without_a_common_factor_are_found(tmp_path):
    path = tmp_path / "s.tif"
    with tifffile.TiffWriter(path, byteorder=">") as file:
        for step in (1, 4, 8):  # as scanners write them
            file.write(np.ascontiguousarray(IMAGE[::step, ::step]), subfiletype=min(step - 1, 1), **TILED)
        file.write(IMAGE[:90, :300], subfiletype=1, **TILED)
    slide = SlideFile(path, mpp=0.5)
    assert [round(downsample) for downsample in slide.downsamples] == [1, 4, 8]
    assert "The file has 2 images (700 x 500, 300 x 90), of which the largest was read." in slide.notes
    assert np.array_equal(slide.read(2, 0, 0, 88, 63), IMAGE[::8, ::8])


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (IMAGE.astype(np.float32), {}, "8 or 16 bits per channel, got float32"),
        (
            np.dstack([IMAGE, IMAGE[..., :1]]),
            {"photometric": "separated"},
            "RGB, got 4 samples of SEPARATED .*vips",
        ),
        (IMAGE[..., 0], {"photometric": "minisblack"}, "RGB, got 1 channel in gray"),
        (IMAGE[..., 0], TILED | {"photometric": "minisblack"}, "RGB, got 1 channel in gray"),
        (IMAGE, TILED | {"photometric": "minisblack", "planarconfig": "contig"}, "RGB, got 3 samples of MINISBLACK"),
        (IMAGE, TILED | {"extratags": [(274, 3, 1, 3, False)]}, r"the orientation 1, got 3 \(turn it: vips autorot\)"),
    ],
)
def test_other_pixels_are_refused(tmp_path, image, options, message):
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, image, **({"photometric": "rgb"} | options))
    with pytest.raises(SlideFileError, match=message):
        SlideFile(path)


def test_a_label_alone_is_refused(tmp_path):
    path = tmp_path / "s.svs"
    tifffile.imwrite(path, IMAGE, photometric="rgb", subfiletype=1, description="Aperio Image Library\nlabel 700x500")
    with pytest.raises(SlideFileError, match="must have an image, got a file with a label or an overview only"):
        SlideFile(path)
    path.write_bytes(b"II*\0" + bytes(8))
    with pytest.raises(SlideFileError, match="must have an image, got a TIFF file without one"):
        SlideFile(path)


def test_twelve_bits_are_converted_by_the_stated_depth(tmp_path):
    wide = np.round(IMAGE.astype(float) * 4095 / 255).astype(np.uint16)
    slide = SlideFile(write_ome(tmp_path / "s.ome.tif", wide, bits=12))
    assert np.array_equal(slide.read(0, 0, 0, 700, 500), IMAGE)
