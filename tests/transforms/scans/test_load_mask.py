"""Tests of LoadMask: slice labels are the same for all formats of the mask."""

import numpy as np
import pytest
from monai.transforms import Compose

from monai_mil_ext.data import find_series
from monai_mil_ext.data.scans.dicom_series import series_affine
from monai_mil_ext.transforms import LoadMask, LoadMaskd, LoadScand, MaskToInstanceLabeld, SliceBagd
from monai_mil_ext.utils import InputError
from tests.dicom_annotations import FRAME, square, write_contours, write_segments
from tests.scans import write_nifti, write_series

SHAPE = (11, 9, 4)


@pytest.fixture
def scan(tmp_path):
    write_series(tmp_path / "s", SHAPE, orientation=(1, 0, 0, 0, -1, 0), FrameOfReferenceUID=FRAME)
    return tmp_path / "s"


def label(reference, scan, names=None, **item):
    steps = [LoadMaskd("reference", names=names), LoadScand("image"), SliceBagd(["image", "reference"])]
    steps.append(MaskToInstanceLabeld("reference"))
    return Compose(steps)({"image": str(scan), "reference": str(reference), **item})["reference"].tolist()


def test_load_mask_of_contours_segments_and_volumes_gives_the_same_labels(scan, tmp_path):
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[4:7, 3:6, 0] = mask[4:7, 3:6, 1] = 1
    contours = write_contours(tmp_path / "rt.dcm", {"GTV-1": [square(scan, k, (5, 4), 1.5) for k in (0, 1)]})
    segments = write_segments(tmp_path / "seg.dcm", scan, {"GTV-1": mask})
    volume = write_nifti(tmp_path / "mask.nii.gz", mask, series_affine(find_series(scan)))
    for reference in (contours, segments, volume):
        np.testing.assert_array_equal(LoadMask()(reference, scan)[0], mask)
        # the series runs from head to foot, so its first slices are the last of the bag
        assert label(reference, scan) == [0, 0, 1, 1]


def test_load_mask_finds_an_annotation_next_to_the_images(scan):
    write_contours(scan / "rt.dcm", {n: [square(scan, k, (5, 4), 1.5)] for k, n in enumerate(("a", "b"))})
    assert label(scan, scan, ["b"]) == [0, 0, 1, 0]
    assert label(scan, scan, names=["a", "b"]) == [0, 0, 1, 1]
    assert label(scan, scan, ["b"], names_of_nothing=1) == [0, 0, 1, 0]


def test_load_mask_refuses_names_for_a_volume(scan, tmp_path):
    volume = write_nifti(tmp_path / "mask.nii.gz", np.zeros(SHAPE, np.uint8), series_affine(find_series(scan)))
    with pytest.raises(ValueError, match=r"`names` must be None for a mask that is a volume, got \['GTV-1'\]"):
        LoadMask(["GTV-1"])(volume, scan)


def test_load_maskd_uses_the_series_of_the_item(scan, tmp_path):
    write_series(scan, SHAPE, series=2, FrameOfReferenceUID=FRAME)
    contours = write_contours(tmp_path / "rt.dcm", {"a": [square_of(scan, 2)]}, series="1.2.826.0.1.2")
    assert label(contours, scan, series="2") == [0, 0, 1, 0]
    with pytest.raises(Exception, match="LoadMaskd") as error:
        label(contours, scan, series="1")
    assert "must refer to the series of the scan" in str(error.value.__cause__)


def square_of(folder, k):
    voxels = np.array([[4, 3, k, 1], [6, 3, k, 1], [6, 5, k, 1], [4, 5, k, 1]], dtype=float)
    return (voxels @ series_affine(find_series(folder, "2")).T)[:, :3] * [-1, -1, 1]


def test_load_mask_of_nan_names_no_option_that_fills_scans(scan, tmp_path):
    mask = np.full(SHAPE, np.nan, np.float32)
    mask[4:7] = 1
    file = write_nifti(tmp_path / "mask.nii.gz", mask, np.eye(4))
    with pytest.raises(InputError, match="must have finite voxels, got 288 that are NaN") as error:
        LoadMask()(file, scan)
    assert error.value.option == ""
