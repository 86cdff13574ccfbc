"""Tests of the voxels of DICOM slices: decoded, of the size that the header says, and each with its own values."""

import re

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from monai_mil_ext.data.scans import dicom_frames
from monai_mil_ext.transforms import LoadScan
from tests.scans import voxels, write_enhanced, write_series

ORDERS = {
    "in order": [0, 5, 10, 15, 20, 25],
    "reversed": [25, 20, 15, 10, 5, 0],
    "interleaved": [0, 10, 20, 5, 15, 25],
}
ENCODERS = {
    "RLE": RLELossless,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
    "JPEG lossless": JPEGLosslessSV1,
}


def compress(path, kind):
    """Compress the pixels of a file in one of four ways, of which no decoder of pydicom reads the last."""
    ds = dcmread(path)
    syntax, frames = ENCODERS[kind], np.atleast_3d(ds.pixel_array.T).T
    if kind in ("RLE", "JPEG-LS"):
        ds.compress(syntax, generate_instance_uid=False)
    else:
        encode = imagecodecs.ljpeg_encode if kind == "JPEG lossless" else imagecodecs.jpeg2k_encode
        options = {} if kind == "JPEG lossless" else {"level": 0, "codecformat": "j2k"}
        values = [frame.astype(np.uint16) for frame in frames]
        ds.PixelRepresentation = 0
        ds.PixelData = encapsulate([encode(np.ascontiguousarray(frame), **options) for frame in values])
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
        ds.file_meta.TransferSyntaxUID = syntax
    ds.save_as(path)


@pytest.mark.parametrize("heights", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("slopes", [[1.0] * 6, [1.0, 2, 3, 4, 5, 6]], ids=["one slope", "slope per frame"])
@pytest.mark.parametrize("kind", ["raw", *ENCODERS])
def test_read_voxels_sorts_frames_and_rescales_each(tmp_path, heights, slopes, kind):
    expected = write_enhanced(tmp_path / "e.dcm", heights, slopes)[..., np.argsort(heights)]
    if kind != "raw":
        compress(tmp_path / "e.dcm", kind)
    image = LoadScan()(tmp_path / "e.dcm")
    np.testing.assert_array_equal(image[0], expected)
    np.testing.assert_allclose(image.affine, [[-0.9, 0, 0, 10], [0, -0.7, 0, 20], [0, 0, 5, 0], [0, 0, 0, 1]])
    assert (image.meta["modality"], image.meta["container"]) == ("CT", "enhanced DICOM")
    assert image.meta["instance_number"].tolist() == (np.argsort(heights) + 1).tolist()


def test_read_voxels_of_one_frame_has_the_slice_thickness(tmp_path):
    write_enhanced(tmp_path / "e.dcm", [3])
    np.testing.assert_allclose(LoadScan()(tmp_path / "e.dcm").affine[:3, 2:], [[0, 10], [0, 20], [2.5, 3]])


def test_read_voxels_decodes_each_file_once(tmp_path, monkeypatch):
    read = []

    def counted(path, *args, original=dcmread, **kwargs):
        read.append("PixelData" in kwargs.get("specific_tags", ()))
        return original(path, *args, **kwargs)

    write_enhanced(tmp_path / "e.dcm", ORDERS["interleaved"])
    monkeypatch.setattr(pydicom, "dcmread", counted)
    LoadScan()(tmp_path / "e.dcm")
    assert len(read) <= 3  # the kind of file, its header and its pixels


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("size", [(60, 48), (30, 48), (64, 50), (64, 40), (48, 64)], ids=str)
@pytest.mark.parametrize("enhanced", [False, True], ids=["series", "enhanced"])
def test_read_voxels_refuses_compressed_pixels_of_another_size(tmp_path, kind, size, enhanced):
    """ITK reads a smaller size silently, and decoders of pydicom a transposed one."""
    if enhanced:
        write_enhanced(tmp_path / "e.dcm", [0, 5], shape=(48, 64))
    else:
        write_series(tmp_path, (48, 64, 1))
    (path,) = tmp_path.iterdir()
    compress(path, kind)
    assert LoadScan()(path).shape[1:3] == (48, 64)
    ds = dcmread(path)
    ds.Rows, ds.Columns = size
    ds.save_as(path)
    if kind == "RLE" and size == (48, 64):  # as many bytes, and nothing in them tells rows from columns
        return
    stated = rf"a DICOM file with compressed pixels of \d+ x \d+ where {size[0]} x {size[1]} are stated"
    with pytest.raises(ValueError, match=stated):
        LoadScan()(path)


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_read_voxels_refuses_compressed_pixels_that_are_cut(tmp_path, kind, share):
    write_enhanced(tmp_path / "e.dcm", [0, 5], shape=(48, 64))
    compress(tmp_path / "e.dcm", kind)
    ds = dcmread(tmp_path / "e.dcm")
    first, second = generate_frames(ds.PixelData, number_of_frames=2)
    for frames in ([first, second[: int(len(second) * share)]], [first]):
        ds.PixelData = encapsulate(frames)
        ds.save_as(tmp_path / "e.dcm")
        with pytest.raises(ValueError, match="must be a readable, undamaged scan, got"):
            LoadScan()(tmp_path / "e.dcm")


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("low", [0, 2, 4])
@pytest.mark.parametrize("kind", ["series", "enhanced"])
def test_read_voxels_ignores_bits_that_are_not_stored(tmp_path, signed, low, kind):
    """Old files have overlays in the highest or lowest bits; 12 bits may have a sign."""
    if kind == "series":
        write_series(tmp_path, (6, 5, 1), RescaleSlope=1, RescaleIntercept=0)
    else:
        write_enhanced(tmp_path / "e.dcm", [0])
    (path,) = tmp_path.iterdir()
    ds = dcmread(path)
    values = np.arange(30).reshape(5, 6) * 100 - (1500 if signed else 0)
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 12, 11 + low, signed
    overlay = 0x5555 & ~(0xFFF << low)
    ds.PixelData = ((values & 0xFFF) << low | overlay).astype("<u2").tobytes()
    ds.save_as(path)
    np.testing.assert_array_equal(LoadScan()(path)[0, ..., 0].T, values)


def test_read_voxels_names_the_syntax_and_the_package_that_decodes_it(tmp_path, monkeypatch):
    write_series(tmp_path, (48, 64, 1))
    (path,) = tmp_path.iterdir()
    compress(path, "JPEG lossless")
    monkeypatch.setattr(dicom_frames.itk, "imread", lambda *args, **kwargs: 1 / 0)
    message = "decoded, got JPEG Lossless, Non-Hierarchical, First-Order Prediction"
    with pytest.raises(ValueError, match=message + r".*; install a decoder: pip install pylibjpeg-libjpeg\."):
        LoadScan()(path)
    ds = dcmread(path)
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
    ds.save_as(path)
    with pytest.raises(ValueError, match=re.escape("decoded, got MPEG-4 AVC/H.264 High Profile")):
        LoadScan()(path)


def test_read_voxels_keeps_the_values_of_a_ct_with_monochrome1(tmp_path):
    expected = write_series(tmp_path / "s", PhotometricInterpretation="MONOCHROME1")
    image = LoadScan()(tmp_path / "s")
    np.testing.assert_array_equal(image[0], expected)
    assert image.meta["notes"] == ["Pixels are MONOCHROME1, shown inverted, and values are those of the modality."]


@pytest.mark.parametrize("tags", [{"PhotometricInterpretation": "MONOCHROME1"}, {"RescaleSlope": "0.000610352"}])
def test_read_voxels_rescales_and_inverts_nothing_by_itk(tmp_path, tags):
    """ITK inverts MONOCHROME1 and rounds what it rescales, so it sees neither."""
    expected = write_series(tmp_path / "s", (48, 64, 1), **tags)
    (path,) = (tmp_path / "s").iterdir()
    plain = LoadScan()(path)
    compress(path, "JPEG lossless")
    np.testing.assert_array_equal(LoadScan()(path), plain)
    assert tags.get("RescaleSlope") or np.array_equal(plain[0], expected)


def test_read_voxels_of_a_large_stack_is_in_the_order_of_the_headers(tmp_path):
    shape = (7, 4, 150)
    write_enhanced(tmp_path / "e.dcm", list(np.random.default_rng(0).permutation(150) * 2.0), shape=shape[:2])
    image = LoadScan()(tmp_path / "e.dcm")
    number = image.meta["instance_number"]
    np.testing.assert_array_equal(image[0], voxels(shape)[..., number - 1])
