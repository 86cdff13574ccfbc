"""Tests of multi-frame DICOM objects: frames in their order and with their own values, or an error."""

from copy import deepcopy

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from monai_mil_ext.transforms import LoadScan
from tests.scans import write_enhanced

ORDERS = {
    "in order": [0, 5, 10, 15, 20, 25],
    "reversed": [25, 20, 15, 10, 5, 0],
    "interleaved": [0, 10, 20, 5, 15, 25],
}


@pytest.mark.parametrize("heights", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("slopes", [[1.0] * 6, [1.0, 2, 3, 4, 5, 6]], ids=["one slope", "slope per frame"])
def test_read_frames_sorts_frames_and_rescales_each(tmp_path, heights, slopes):
    expected = write_enhanced(tmp_path / "e.dcm", heights, slopes)[..., np.argsort(heights)]
    image = LoadScan()(tmp_path / "e.dcm")
    np.testing.assert_array_equal(image[0], expected)
    np.testing.assert_allclose(image.affine, [[-0.9, 0, 0, 10], [0, -0.7, 0, 20], [0, 0, 5, 0], [0, 0, 0, 1]])
    assert image.meta["modality"] == "CT"


def test_read_frames_of_one_frame_has_the_slice_thickness(tmp_path):
    write_enhanced(tmp_path / "e.dcm", [3])
    np.testing.assert_allclose(LoadScan()(tmp_path / "e.dcm").affine[:3, 2:], [[0, 10], [0, 20], [2.5, 3]])


def without_groups(ds):
    del ds.PerFrameFunctionalGroupsSequence, ds.SharedFunctionalGroupsSequence


def two_orientations(ds):
    (shared,) = ds.SharedFunctionalGroupsSequence
    for k, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
        group.PlaneOrientationSequence = deepcopy(shared.PlaneOrientationSequence)
        group.PlaneOrientationSequence[0].ImageOrientationPatient = [[1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1]][k // 3]
    del shared.PlaneOrientationSequence


def two_stacks(ds):
    for k, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
        content = Dataset()
        content.StackID, content.DimensionIndexValues = str(k // 3), [1]
        group.FrameContentSequence = [content]


def some_without_rescaling(ds):
    for group in ds.PerFrameFunctionalGroupsSequence[::2]:
        del group.PixelValueTransformationSequence


def some_without_position(ds):
    for group in ds.PerFrameFunctionalGroupsSequence[::2]:
        del group.PlanePositionSequence


def spacing(*values):
    def edit(ds):
        ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = list(values)

    return edit


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (without_groups, "no functional groups"),
        (two_orientations, "Frames do not have a consistent ImageOrientationPatient"),
        (two_stacks, "2 stacks"),
        (some_without_rescaling, "A modality LUT transform is required but not found"),
        (some_without_position, ""),
        (spacing(0, 0), "ValueError in highdicom"),
        (spacing(-1, 1), "ValueError in highdicom"),
    ],
)
def test_read_frames_refuses_what_is_no_plain_stack(tmp_path, edit, reason):
    write_enhanced(tmp_path / "Secretname.dcm", ORDERS["in order"])
    ds = dcmread(tmp_path / "Secretname.dcm")
    edit(ds)
    ds.save_as(tmp_path / "Secretname.dcm")
    with pytest.raises(ValueError, match=f"one regular stack of frames, .*, got: {reason}") as error:
        LoadScan()(tmp_path / "Secretname.dcm")
    assert "Secretname" not in str(error.value)


@pytest.mark.parametrize(
    ("heights", "reason"),
    [
        ([0, 5, 10, 20], "Frame positions do not form a regularly-spaced volume"),
        ([0, 5, 5, 10], "Multiple frames found at one or more plane positions"),
        ([0, 5, 0, 5], "Multiple frames found at one or more plane positions"),
    ],
)
def test_read_frames_refuses_irregular_positions(tmp_path, heights, reason):
    write_enhanced(tmp_path / "e.dcm", heights)
    with pytest.raises(ValueError, match=f"one regular stack of frames, .*, got: {reason}"):
        LoadScan()(tmp_path / "e.dcm")


@pytest.mark.parametrize(("tag", "value"), [("Rows", 10), ("Rows", 3), ("NumberOfFrames", 5), ("NumberOfFrames", 7)])
def test_read_frames_refuses_pixels_of_another_size(tmp_path, tag, value):
    write_enhanced(tmp_path / "e.dcm", ORDERS["in order"], **{tag: value})
    with pytest.raises(ValueError, match="undamaged scan, got a DICOM file with 360 bytes of pixels where"):
        LoadScan()(tmp_path / "e.dcm")
