"""Tests of the DICOM files of a series: none that is damaged is read, and none is lost."""

import re

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless

from monai_mil_ext.data import find_series
from monai_mil_ext.data.scans.dicom_files import read_header
from monai_mil_ext.transforms import LoadScan
from tests.scans import SECRETS, voxels, write_enhanced, write_series


def change(folder, edit, *slices):
    """Edit the datasets of some slices of a series, by default of all."""
    stack = find_series(folder)
    for item in [stack[k] for k in slices] if slices else stack:
        ds = dcmread(item.path)
        edit(ds)
        ds.save_as(item.path)


def tags(**values):
    return lambda ds: [setattr(ds, tag, value) for tag, value in values.items()]


DAMAGES = {
    "4 DICOM files with 60 bytes of pixels where 10 x 6 of 16 bits have 120": tags(Rows=10),
    "4 DICOM files with 60 bytes of pixels where 2 x 6 of 16 bits have 24": tags(Rows=2),
    "4 DICOM files with 60 bytes of pixels where 5 x 60000 of 16 bits have 600000": tags(Columns=60000),
    "4 DICOM files with 60 bytes of pixels where 5 x 6 of 8 bits have 30": tags(BitsAllocated=8),
    "4 DICOM files with 60 bytes of pixels where 5 x 6 of 32 bits have 120": tags(BitsAllocated=32),
    "4 DICOM files with 60 bytes of pixels where 5 x 6 of 1 bits have 4": tags(BitsAllocated=1),
    "4 DICOM files with 60 bytes of pixels where 0 x 6 of 16 bits have 0": tags(Rows=0),
    "4 DICOM files with 0 bytes of pixels": tags(PixelData=b""),
    "4 DICOM files with no pixel data": lambda ds: ds.__delattr__("PixelData"),
    "4 DICOM files with a PixelSpacing of 0 x 0 mm": tags(PixelSpacing=[0, 0]),
    "4 DICOM files with a PixelSpacing of 0.7 x -0.9 mm": tags(PixelSpacing=[0.7, -0.9]),
    "4 of modality CT with a PixelSpacing that is not finite": tags(PixelSpacing=["NaN", "1"]),
    "4 of modality CT with 1 values of PixelSpacing": tags(PixelSpacing=0.7),
    "4 of modality CT with 2 values of ImagePositionPatient": tags(ImagePositionPatient=[1, 2]),
    "4 DICOM files with a SliceThickness of -2 mm": tags(SliceThickness=-2),
    "4 DICOM files with a RescaleSlope of 0": tags(RescaleSlope=0),
    "4 DICOM files with a ModalityLUTSequence": tags(ModalityLUTSequence=[Dataset()]),
    "4 DICOM files with a color palette": tags(PhotometricInterpretation="PALETTE COLOR"),
    "4 DICOM files with MONOCHROME1 pixels, which may be inverted": tags(
        Modality="MR", PhotometricInterpretation="MONOCHROME1"
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_find_series_refuses_slices_whose_pixels_or_values_are_impossible(tmp_path, damage):
    write_series(tmp_path / "s")
    change(tmp_path / "s", DAMAGES[damage])
    with pytest.raises(ValueError, match=re.escape(damage)):
        find_series(tmp_path / "s")


def test_find_series_refuses_floating_point_pixels(tmp_path):
    def edit(ds):
        ds.FloatPixelData, ds.BitsAllocated = np.zeros(30, np.float32).tobytes(), 32
        del ds.PixelData

    write_series(tmp_path / "s")
    change(tmp_path / "s", edit, 2)
    with pytest.raises(ValueError, match="got 1 DICOM file with floating-point pixels"):
        find_series(tmp_path / "s")


@pytest.mark.parametrize("kind", ["odd", "deflated", "big endian", "RLE", "no preamble"])
def test_find_series_takes_pixels_of_the_right_length_in_any_encoding(tmp_path, kind):
    shape = (32, 32, 4) if kind == "RLE" else (5, 3, 4)
    expected = write_series(tmp_path / "s", shape)
    stored = voxels(shape)
    for k, item in enumerate(find_series(tmp_path / "s")):
        ds = dcmread(item.path)
        endian = kind != "big endian"
        if kind == "odd":
            ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
            ds.PixelData = (stored[:, :, k].T % 250).astype(np.uint8).tobytes() + b"\0"
        elif kind == "RLE":
            ds.compress(RLELossless)
        elif kind == "deflated":
            ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        elif kind == "big endian":
            ds.PixelData = stored[:, :, k].T.astype(">i2").tobytes()
            ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        else:
            del ds.file_meta, ds.preamble
            dcmwrite(item.path, ds, implicit_vr=True, little_endian=True)
            continue
        dcmwrite(item.path, ds, implicit_vr=False, little_endian=endian)
    loaded = LoadScan()(tmp_path / "s")[0].numpy()
    np.testing.assert_array_equal(loaded, (stored % 250) * 2.0 - 1024 if kind == "odd" else expected)


@pytest.mark.parametrize("suffix", [".dcm", "", ".IMA"])
@pytest.mark.parametrize("k", [0, 1, -1], ids=["first", "middle", "last"])
@pytest.mark.parametrize("size", [0, 1, 100, 132, 140, 200, 300, 400, 500, 600, 650, 700])
def test_find_series_loses_no_slice_that_is_cut(tmp_path, suffix, k, size):
    write_series(tmp_path / "s", suffix=suffix)
    path = find_series(tmp_path / "s")[k].path
    whole = path.read_bytes()
    assert len(whole) > size
    path.write_bytes(whole[:size])
    with pytest.raises(ValueError, match=r"a readable, undamaged scan, got 1 DICOM file with"):
        find_series(tmp_path / "s")


def test_find_series_ignores_raw_data_without_pixels(tmp_path):
    write_series(tmp_path / "s")
    write_series(tmp_path / "s", series=3, SOPClassUID="1.2.840.10008.5.1.4.1.1.66")
    for item in (tmp_path / "s").glob("*_3_*"):
        ds = dcmread(item)
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        del ds.PixelData, ds.Rows
        ds.save_as(item)
    assert len(find_series(tmp_path / "s")) == 4


@pytest.mark.parametrize(
    "tag", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SeriesInstanceUID"]
)
def test_find_series_loses_no_slice_without_geometry(tmp_path, tag):
    write_series(tmp_path / "s")
    change(tmp_path / "s", lambda ds: ds.__delattr__(tag), -1)
    with pytest.raises(ValueError, match=f"1 DICOM file with (no {tag}|an incomplete header)"):
        find_series(tmp_path / "s")


def test_find_series_ignores_damaged_files_of_a_series_that_was_not_chosen(tmp_path):
    write_series(tmp_path / "s", series=2)
    change(tmp_path / "s", lambda ds: ds.__delattr__("PixelData"))
    write_series(tmp_path / "s", series=1)
    assert len(find_series(tmp_path / "s", "1")) == 4
    with pytest.raises(ValueError, match="got 4 DICOM files with no pixel data"):
        find_series(tmp_path / "s", "2")


def test_find_series_ignores_hidden_and_other_files(tmp_path):
    write_series(tmp_path / "s")
    for name in ("._0001.dcm", ".DS_Store", "Thumbs.db", "done.txt"):
        (tmp_path / "s" / name).write_bytes(b"")
    assert len(find_series(tmp_path / "s")) == 4


@pytest.mark.parametrize(
    ("tag", "value", "name"),
    [
        ("PatientName", "Another^Name", "patients"),
        ("PatientID", "OTHERID", "patients"),
        ("StudyInstanceUID", "1.2.3", "studies"),
        ("FrameOfReferenceUID", "1.2.3", "frames of reference"),
        ("Modality", "MR", "modalities"),
        ("PhotometricInterpretation", "MONOCHROME1", "photometric interpretations"),
    ],
)
def test_find_series_refuses_a_series_of_several_patients_or_studies(tmp_path, tag, value, name):
    write_series(tmp_path / "s", FrameOfReferenceUID="1.2.826.0.1.77")
    change(tmp_path / "s", tags(**{tag: value}), -1)
    with pytest.raises(ValueError, match=f"a series of one patient, study and kind, got 2 {name} in it") as error:
        find_series(tmp_path / "s")
    assert not [secret for secret in (*SECRETS.values(), "Another") if secret in str(error.value)]


def test_read_header_leaves_the_pixels_in_the_file(tmp_path):
    write_series(tmp_path / "s", (60, 50, 1))
    pixels = read_header(next((tmp_path / "s").iterdir())).get_item("PixelData", keep_deferred=True)
    assert (pixels.length, pixels.value) == (60 * 50 * 2, None)


def test_pixel_fault_finds_no_damage_in_color_frames(tmp_path):
    color = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    write_enhanced(tmp_path / "enhanced.dcm", [0, 5], **color, PixelData=bytes(2 * 5 * 6 * 3 * 2))
    with pytest.raises(ValueError, match="must be one 3D scalar volume, got DICOM slices in color"):
        LoadScan()(tmp_path / "enhanced.dcm")
