"""Tests of find_series: one regular stack of slices, or a clear error."""

import re

import numpy as np
import pytest
from pydicom import dcmread

from monai_mil_ext.data import find_series
from monai_mil_ext.data.scans.slice_stack import series_affine
from monai_mil_ext.transforms import LoadScan
from tests.scans import SECRETS, write_series, write_structure_set


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"heights": np.array([0, 2.5, 7.5, 10])}, r"a step of 5 mm between the slices at 32.5 and 37.5 mm where 2.5"),
        ({"heights": np.array([0, 2.5, 10, 12.5])}, r"\(2 slices seem missing, 5 mm\)"),
        ({"heights": np.array([0, 2.5, 5.6, 7.5])}, r"evenly spaced slices, got a step of 3.1 mm"),
        ({"heights": np.array([0, 2.5, 2.5, 5])}, r"one slice per position, got two at 32.5 mm \(1 slice too many"),
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


def test_find_series_accepts_rounded_orientations(tmp_path):
    write_series(tmp_path / "s", orientation=(0.95534, 0.29552, 0, -0.29552, 0.95534, 0))
    path = find_series(tmp_path / "s")[2].path
    ds = dcmread(path)
    ds.ImageOrientationPatient = [0.955, 0.296, 0, -0.296, 0.955, 0]
    ds.save_as(path)
    assert len(find_series(tmp_path / "s")) == 4


@pytest.mark.parametrize(
    ("tag", "value", "name"),
    [
        ("Rows", 4, "size"),
        ("PixelSpacing", [0.7, 0.8], "pixel spacing"),
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
