"""Tests of scores as NIfTI."""

import gzip

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_mil_ext.data import write_nifti
from monai_mil_ext.data.scans.nifti_writer import nifti_bytes


def test_write_nifti_keeps_values_affine_and_description(tmp_path):
    affine = torch.tensor([[-0.7, 0.1, 0, 5], [0.1, 0.7, 0, 7], [0, 0, 3.3, -50], [0, 0, 0, 1]], dtype=torch.float64)
    volume = MetaTensor(torch.rand(1, 3, 4, 5), affine=affine)
    write_nifti(tmp_path / "sub" / "scores.nii.gz", volume, "attention")
    read = nib.load(tmp_path / "sub" / "scores.nii.gz")
    torch.testing.assert_close(torch.from_numpy(read.affine), affine, rtol=0, atol=1e-6)
    assert torch.equal(torch.from_numpy(read.get_fdata()).float(), volume[0].as_tensor())
    assert read.header["descrip"].item() == b"attention"
    assert read.header.get_xyzt_units()[0] == "mm"


def test_write_nifti_refuses_several_channels(tmp_path):
    with pytest.raises(ValueError, match=r"`volume` must have shape \(1, X, Y, Z\), got \(2, 3, 3, 3\)"):
        write_nifti(tmp_path / "v.nii", MetaTensor(torch.rand(2, 3, 3, 3)))


def test_nifti_bytes_keep_gray_values_and_affine():
    volume, affine = np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.diag([-2.0, -2, 5, 1])
    read = nib.Nifti1Image.from_bytes(gzip.decompress(nifti_bytes(volume, affine)))
    assert read.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(read.dataobj, volume)
    np.testing.assert_array_equal(read.affine, affine)
