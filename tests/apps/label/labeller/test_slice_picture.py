"""Tests of the pictures of slices."""

import io

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from monai_mil_ext.apps.label.labeller import SlicePictures

AFFINE = np.diag([1.0, 2.0, 5.0, 1])


def write_scan(path, affine=AFFINE):
    voxels = np.zeros((8, 8, 3), np.float32)
    voxels[6:, :, 1] = 50  # at the right of the patient, in RAS
    voxels[..., 2] = 100
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return str(path)


def picture(code):
    return np.asarray(Image.open(io.BytesIO(code)))


@pytest.mark.parametrize("flip", [1, -1])
def test_slice_pictures_are_in_radiological_orientation_and_in_proportion(tmp_path, flip):
    affine = np.diag([flip * 1.0, 2.0, 5.0, 1])
    pictures = SlicePictures((0, 100))
    path = write_scan(tmp_path / "s.nii", affine)
    assert pictures.count(path) == 3
    shown = picture(pictures.png(path, 1))
    assert shown.shape == (512, 256)
    right, left = shown[:, :20].mean(), shown[:, -20:].mean()
    assert (right, left) == ((128, 0) if flip > 0 else (0, 128))
    assert picture(pictures.png(path, 2)).min() == 255


def test_slice_pictures_fit_the_gray_values_without_a_window(tmp_path):
    pictures = SlicePictures()
    path = write_scan(tmp_path / "s.nii")
    assert [picture(pictures.png(path, i)).max() for i in range(3)] == [0, 128, 255]


def test_slice_pictures_keep_few_scans_and_have_no_other_slices(tmp_path):
    pictures = SlicePictures()
    for name in "abcd":
        pictures.count(write_scan(tmp_path / f"{name}.nii"))
    assert len(pictures._kept) == 3
    with pytest.raises(ValueError, match="`slice` must be from 0 to 2, got 3"):
        pictures.png(str(tmp_path / "d.nii"), 3)
