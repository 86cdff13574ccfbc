"""Tests of the anatomy that scans are drawn of."""

import nibabel as nib
import numpy as np
import pytest

from monai_mil_ext.data import read_anatomy


def write_volume(path, spacing=1.0, brightness=200):
    """Write a ball and a speck, with axes to the left and to the back, and return its voxels."""
    axes = np.meshgrid(*[np.linspace(-1, 1, 40)] * 3, indexing="ij")
    voxels = (brightness * (np.sqrt(sum(axis**2 for axis in axes)) < 0.8)).astype(np.uint8)
    voxels[:4] = 0
    voxels[2, 2, 2] = brightness  # a speck outside of the brain
    nib.save(nib.Nifti1Image(voxels[..., None], np.diag([-spacing, -spacing, spacing, 1.0])), path)
    return voxels


def test_a_head_is_read_to_the_right_the_front_and_upward(tmp_path):
    voxels = write_volume(tmp_path / "head.nii.gz")
    anatomy = read_anatomy(tmp_path / "head.nii.gz")
    np.testing.assert_array_equal(anatomy.volume > 0, voxels[::-1, ::-1] > 0)
    assert anatomy.volume.max() == 1.0
    assert anatomy.organ.sum() == (voxels > 0).sum() - 1  # without the speck


def test_a_head_must_have_voxels_of_1_mm(tmp_path):
    write_volume(tmp_path / "head.nii.gz", spacing=2.0)
    with pytest.raises(ValueError, match=r"`path` must have voxels of 1 mm, got \(2.0, 2.0, 2.0\)"):
        read_anatomy(tmp_path / "head.nii.gz")


def test_an_empty_volume_is_refused(tmp_path):
    write_volume(tmp_path / "head.nii.gz", brightness=0)
    with pytest.raises(ValueError, match=r"`path` must be a volume with positive voxels, got 3D, max 0"):
        read_anatomy(tmp_path / "head.nii.gz")
