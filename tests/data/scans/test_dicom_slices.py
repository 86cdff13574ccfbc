"""Tests of the slices of DICOM objects: a frame of an enhanced object is checked like a slice of a series."""

import re
from copy import deepcopy

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset

from monai_mil_ext.data import find_series
from monai_mil_ext.transforms import LoadScan
from monai_mil_ext.utils import InputError
from tests.scans import edit_dicom, set_in_group, write_enhanced, write_series

HEIGHTS = [0, 5, 10, 15, 20, 25]


def per_frame(ds):
    return ds.PerFrameFunctionalGroupsSequence


def without_groups(ds):
    del ds.PerFrameFunctionalGroupsSequence, ds.SharedFunctionalGroupsSequence


def some_without(name, of=slice(None, None, 2)):
    return lambda ds: [group.__delattr__(f"{name}Sequence") for group in per_frame(ds)[of]]


def shared(sequence, **values):
    return lambda ds: set_in_group(ds.SharedFunctionalGroupsSequence[0], sequence, **values)


def without_shared(name):
    return lambda ds: ds.SharedFunctionalGroupsSequence[0].__delattr__(f"{name}Sequence")


FAULTS = {
    "several frames without positions (no functional groups)": without_groups,
    "a RescaleSlope of some frames only": some_without("PixelValueTransformation"),
    "no ImagePositionPatient of some frames": some_without("PlanePosition"),
    "no ImageOrientationPatient of some frames": without_shared("PlaneOrientation"),
    "no PixelSpacing of some frames": without_shared("PixelMeasures"),
    "6 frames and functional groups of 5": lambda ds: per_frame(ds).pop(),
    "7 frames and functional groups of 6": lambda ds: setattr(ds, "NumberOfFrames", 7),
    "0 frames and functional groups of 6": lambda ds: setattr(ds, "NumberOfFrames", 0),
    "2147483647 frames and functional groups of 6": lambda ds: setattr(ds, "NumberOfFrames", 2**31 - 1),
    "a PixelSpacing of 0 x 0 mm": shared("PixelMeasures", PixelSpacing=[0, 0]),
    "a PixelSpacing of -1 x 1 mm": shared("PixelMeasures", PixelSpacing=[-1, 1]),
    "a SliceThickness of -2 mm": shared("PixelMeasures", SliceThickness=-2),
    "360 bytes of pixels where 6 x 10 x 6 of 16 bits have 720": lambda ds: setattr(ds, "Rows", 10),
    "360 bytes of pixels where 6 x 3 x 6 of 16 bits have 216": lambda ds: setattr(ds, "Rows", 3),
    "no Rows": lambda ds: ds.__delattr__("Rows"),
    "a RescaleSlope of 0": lambda ds: set_in_group(per_frame(ds)[2], "PixelValueTransformation", RescaleSlope=0),
    "2 values of ImagePositionPatient": lambda ds: set_in_group(
        per_frame(ds)[2], "PlanePosition", ImagePositionPatient=[1, 2]
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("place", ["file", "folder", "beside a series"])
def test_read_slices_refuses_frames_without_geometry_or_values(tmp_path, fault, place):
    folder = tmp_path / "Secretname"
    folder.mkdir()
    write_enhanced(folder / "Secretname.dcm", HEIGHTS)
    edit_dicom(folder / "Secretname.dcm", FAULTS[fault])
    if place == "beside a series":
        write_series(folder, series=55)  # of the same number and UID
    mixed = "|series that mixes them" if place == "beside a series" else ""
    with pytest.raises(InputError, match=re.escape(fault) + mixed) as error:
        LoadScan()(folder if place != "file" else folder / "Secretname.dcm")
    assert "Secretname" not in str(error.value)


def test_read_slices_ignores_a_faulty_object_of_another_series(tmp_path):
    write_enhanced(tmp_path / "e.dcm", HEIGHTS)
    edit_dicom(tmp_path / "e.dcm", without_groups)
    expected = write_series(tmp_path)
    image = LoadScan()(tmp_path)
    np.testing.assert_array_equal(image[0], expected)
    text = "1 object of modality CT with several frames without positions (no functional groups) was left out."
    assert image.meta["notes"] == [text]


@pytest.mark.parametrize(
    ("heights", "reason"),
    [
        ([0, 5, 10, 20], r"evenly spaced slices, got a step of 10 mm between the slices at 10 and 20 mm where 5"),
        ([0, 5, 5, 10], "one slice per position, got two at 5 mm"),
        ([0, 5, 0, 5], "one stack of slices, got 2 in a series"),
    ],
)
def test_read_slices_finds_missing_and_repeated_frames(tmp_path, heights, reason):
    write_enhanced(tmp_path / "e.dcm", heights)
    with pytest.raises(InputError, match=reason):
        LoadScan()(tmp_path / "e.dcm")


def test_read_slices_finds_frames_of_another_spacing(tmp_path):
    def edit(ds):
        measures = deepcopy(ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence)
        measures[0].PixelSpacing = [0.5, 0.5]
        for group in per_frame(ds)[2:4]:
            group.PixelMeasuresSequence = measures

    write_enhanced(tmp_path / "e.dcm", HEIGHTS)
    edit_dicom(tmp_path / "e.dcm", edit)
    with pytest.raises(InputError, match="slices of the same pixel spacing, got a series that mixes them"):
        LoadScan()(tmp_path / "e.dcm")


def test_read_slices_ignores_a_real_world_value_mapping(tmp_path):
    """It is a second meaning of the values, beside that of slope and intercept."""
    expected = write_enhanced(tmp_path / "e.dcm", HEIGHTS, [1, 2, 3, 4, 5, 6])
    mapping = {"RealWorldValueSlope": 100.0, "RealWorldValueIntercept": 7.0}
    edit_dicom(tmp_path / "e.dcm", shared("RealWorldValueMapping", **mapping))
    np.testing.assert_array_equal(LoadScan()(tmp_path / "e.dcm")[0], expected)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (
            lambda ds: setattr(ds, "PixelData", ds.PixelData[:-60]),
            "1 DICOM file with 300 bytes of pixels",
        ),
        (lambda ds: setattr(ds, "Modality", "MR"), "1 DICOM file with MONOCHROME1 pixels"),
        (shared("PixelMeasures", PixelSpacing=[1e-300, 1e-300]), "voxels of a positive, finite size"),
    ],
)
def test_read_slices_counts_files_and_no_frames(tmp_path, edit, reason):
    write_enhanced(tmp_path / "e.dcm", HEIGHTS, PhotometricInterpretation="MONOCHROME1")
    edit_dicom(tmp_path / "e.dcm", edit)
    with pytest.raises(InputError, match=reason) as error:
        LoadScan()(tmp_path / "e.dcm")
    assert error.value.facts["container"] == "enhanced DICOM"


@pytest.mark.parametrize("split", [1, 3, 5])
def test_read_slices_joins_the_files_of_an_enhanced_series(tmp_path, split):
    """Frames are sorted by position, whichever file they are in, and files of one frame count too."""
    whole = write_enhanced(tmp_path / "whole.dcm", HEIGHTS, [1, 2, 3, 4, 5, 6])
    expected = LoadScan()(tmp_path / "whole.dcm")
    parts = tmp_path / "parts"
    parts.mkdir()
    first = write_enhanced(parts / "b.dcm", HEIGHTS[:split], list(range(1, split + 1)))
    second = write_enhanced(parts / "a.dcm", HEIGHTS[split:], list(range(split + 1, 7)))
    image = LoadScan()(parts)
    np.testing.assert_array_equal(image[0], np.concatenate([first, second], axis=2))
    np.testing.assert_allclose(image.affine, expected.affine)
    assert image.meta["container"] == "enhanced DICOM"
    assert whole.shape == tuple(image.shape[1:])


def test_find_series_has_frames_as_slices(tmp_path):
    write_enhanced(tmp_path / "e.dcm", [10, 0, 5], [1, 2, 3])
    found = find_series(tmp_path)
    assert [item.frame for item in found] == [1, 2, 0]
    assert [item.rescale for item in found] == [(2.0, 0.0), (3.0, 0.0), (1.0, 0.0)]
    assert [item.position[2] for item in found] == [0, 5, 10]


TAGS = [
    "Rows",
    "Columns",
    "NumberOfFrames",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "SamplesPerPixel",
    "ImageType",
    "PhotometricInterpretation",
    "SeriesInstanceUID",
    "Modality",
    "InstanceNumber",
]
PLACES = {
    "PixelMeasures": ("PixelSpacing", "SliceThickness"),
    "PlanePosition": ("ImagePositionPatient",),
    "PlaneOrientation": ("ImageOrientationPatient",),
    "PixelValueTransformation": ("RescaleSlope", "RescaleIntercept"),
    "FrameContent": ("StackID", "TemporalPositionIndex"),
}
VALUES = st.one_of(
    st.integers(-3, 2**31 - 1),
    st.floats(),
    st.lists(st.floats(-1e3, 1e3), max_size=7),
    st.text(max_size=6),
    st.none(),
    st.just("Secretname"),
)


@pytest.mark.slow(buys="no header of a frame crashes the reader, or is read with other values")
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_read_slices_reads_or_refuses_any_header(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzz")
    path = folder / "e.dcm"
    expected = write_enhanced(path, HEIGHTS, [1, 2, 3, 4, 5, 6])
    ds = dcmread(path)
    try:
        for _ in range(data.draw(st.integers(1, 2))):
            group = data.draw(st.sampled_from([ds.SharedFunctionalGroupsSequence[0], *per_frame(ds)[:2]]))
            sequence = data.draw(st.sampled_from([*PLACES, ""]))
            value = data.draw(VALUES)
            if sequence:
                set_in_group(group, sequence, **{data.draw(st.sampled_from(PLACES[sequence])): value})
            elif data.draw(st.booleans()):
                setattr(ds, data.draw(st.sampled_from(TAGS)), value)
            else:
                setattr(group, f"{data.draw(st.sampled_from(list(PLACES)))}Sequence", [Dataset()][: value is None])
        ds.save_as(path)
    except Exception:  # pydicom writes no such value
        return
    message = ""
    try:
        image = LoadScan()(path)
    except ValueError as error:
        message = str(error)
    if message:
        assert message.startswith("`image` must")
        assert "Secretname" not in message
    else:
        assert image.isfinite().all()
        assert image.shape[0] == 1
        assert image.shape[3] <= expected.shape[2]
