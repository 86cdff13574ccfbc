"""Tests of find_series: one regular stack of slices, or a clear error."""

import re

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.fileset import FileSet
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless

from monai_mil_ext.data import find_series
from monai_mil_ext.data.scans.dicom_series import series_affine
from monai_mil_ext.transforms import LoadScan
from tests.scans import SECRETS, voxels, write_enhanced, write_series, write_structure_set


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"heights": np.array([0, 2.5, 7.5, 10])}, r"a step of 5 mm between the slices at 32.5 and 37.5 mm where 2.5"),
        ({"heights": np.array([0, 2.5, 10, 12.5])}, r"\(2 slices seem missing\)"),
        ({"heights": np.array([0, 2.5, 5.1, 7.5])}, r"evenly spaced slices, got a step of 2.6 mm"),
        ({"heights": np.array([0, 2.5, 2.5, 5])}, r"one slice per position, got two at 32.5 mm \(1 slices too many"),
        ({"shift": 0.3}, r"stack shifted by 0.9 mm in the plane of its slices \(gantry tilt\?\)"),
        ({"SamplesPerPixel": 3}, r"one 3D scalar volume, got DICOM slices in color"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, r"orthogonal row and column directions of length one"),
    ],
)
def test_find_series_refuses_irregular_stacks(tmp_path, how, match):
    write_series(tmp_path / "s", **how)
    with pytest.raises(ValueError, match=match):
        find_series(tmp_path / "s")


def test_find_series_accepts_rounded_positions(tmp_path):
    write_series(tmp_path / "s", heights=np.array([0, 2.505, 4.995, 7.5]), shift=0.01)
    assert [s.position[2] for s in find_series(tmp_path / "s")] == [30, 32.505, 34.995, 37.5]


@pytest.mark.parametrize(
    ("tag", "value", "name"),
    [
        ("Rows", 4, "size"),
        ("PixelSpacing", [0.7, 0.8], "pixel spacing"),
        ("ImageOrientationPatient", [0.8, 0.6, 0, -0.6, 0.8, 0], "orientation"),
    ],
)
def test_find_series_refuses_mixed_slices(tmp_path, tag, value, name):
    write_series(tmp_path / "s")
    path = find_series(tmp_path / "s")[2].path
    ds = dcmread(path)
    setattr(ds, tag, value)
    ds.save_as(path)
    with pytest.raises(ValueError, match=f"slices of the same {name}, got a series that mixes them"):
        find_series(tmp_path / "s")


def test_find_series_lists_several_series_without_patient_data(tmp_path):
    write_series(tmp_path / "s", series=2)
    write_series(tmp_path / "s", (6, 5, 3), series=5, Modality="MR")
    message = "got 2: 3 slices of modality MR, series number 5; 4 slices of modality CT, series number 2."
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        find_series(tmp_path / "s")
    assert not [secret for secret in SECRETS.values() if secret in str(error.value)]


def test_find_series_refuses_folders_without_images(tmp_path):
    with pytest.raises(ValueError, match="one series of DICOM image slices, got no DICOM object"):
        find_series(tmp_path)
    write_structure_set(tmp_path)
    with pytest.raises(ValueError, match="got 1 of modality RTSTRUCT"):
        find_series(tmp_path)


@pytest.mark.parametrize(
    "series", ["1.2.826.0.1.5", "5", 5, "T2 axial"], ids=["UID", "number", "integer", "description"]
)
def test_find_series_chooses_one_of_several(tmp_path, series):
    write_series(tmp_path / "s", series=2)
    write_series(tmp_path / "s", (6, 5, 3), series=5, Modality="MR", SeriesDescription="T2 axial")
    assert {item.series for item in find_series(tmp_path / "s", series)} == {("1.2.826.0.1.5", "MR", "5")}


def test_find_series_refuses_an_unknown_choice(tmp_path):
    write_series(tmp_path / "s", series=2, SeriesDescription="Secretname")
    write_series(tmp_path / "s", series=5, SeriesDescription="Secretname")
    rows = "4 slices of modality CT, series number 2; 4 slices of modality CT, series number 5."
    with pytest.raises(ValueError, match=re.escape(f"description or number of one series, got none of 2: {rows}")):
        find_series(tmp_path / "s", "3")
    with pytest.raises(ValueError, match=re.escape(f"got more than one of 2: {rows}")) as error:
        find_series(tmp_path / "s", "Secretname")
    assert "Secretname" not in str(error.value)


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, -1, 0), (0.8, 0.6, 0, -0.6, 0.8, 0)])
@pytest.mark.parametrize("depth", [1, 4])
def test_series_affine_is_that_of_the_voxels(tmp_path, orientation, depth):
    write_series(tmp_path / "s", (6, 5, depth), orientation=orientation)
    loaded = LoadScan()(tmp_path / "s").affine
    np.testing.assert_allclose(series_affine(find_series(tmp_path / "s")), loaded, atol=1e-6)


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
    shape = (6, 4, 4) if kind == "RLE" else (5, 3, 4)
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


@pytest.mark.parametrize(
    "tag", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SeriesInstanceUID"]
)
def test_find_series_ignores_raw_data_without_pixels(tmp_path):
    write_series(tmp_path / "s")
    write_series(tmp_path / "s", series=3, SOPClassUID="1.2.840.10008.5.1.4.1.1.66")
    for item in (tmp_path / "s").glob("*_3_*"):
        ds = dcmread(item)
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        del ds.PixelData, ds.Rows
        ds.save_as(item)
    assert len(find_series(tmp_path / "s")) == 4


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


def test_find_series_says_what_it_did_not_search(tmp_path):
    for name in ("a", "b", "c"):
        write_series(tmp_path / name)
    with pytest.raises(ValueError, match=r"got no DICOM object; 3 sub-folders were not searched\."):
        find_series(tmp_path)
    write_enhanced(tmp_path / "enhanced.dcm", [0, 5])
    directory = FileSet()
    directory.write(tmp_path)
    with pytest.raises(
        ValueError, match=r"got 1 DICOMDIR \(not followed\), 1 of modality CT with several frames; 3 sub"
    ):
        find_series(tmp_path)
    with pytest.raises(ValueError, match="must be the folder of a series, got a DICOMDIR"):
        LoadScan()(tmp_path / "DICOMDIR")
