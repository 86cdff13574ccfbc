"""Fetching the demo data: what is said when it can't be had, and what is refused."""

import pytest
import torch


def test_without_a_registry_the_way_out_is_named(tmp_path, monkeypatch):
    from scripts.prepare import prepare_ct

    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"(?s)must be fetched from the package registry.*--data digits"):
        prepare_ct(tmp_path / "data")
    assert not (tmp_path / "data" / "cohort.json").exists()


def test_other_weights_are_refused(tmp_path):
    from scripts.mobilenet_v2 import MobileNetV2Features

    torch.save({}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"`weights` must be the file of SHA-256 b0353104\w+, got w.pth of"):
        MobileNetV2Features(str(tmp_path / "w.pth"))


def test_digits_are_made_once_and_share_no_image(tmp_path):
    import nibabel as nib
    from scripts.prepare import prepare_digits

    cohort = prepare_digits(tmp_path, num_scans=3)
    written = cohort.stat().st_mtime_ns
    assert prepare_digits(tmp_path, num_scans=3).stat().st_mtime_ns == written
    slices = [
        nib.load(tmp_path / f"digits_{i}.nii.gz").get_fdata()[:, :, k].tobytes() for i in range(3) for k in range(40)
    ]
    assert len(set(slices)) == len(slices)


def test_contours_become_voxels_and_holes_stay_holes(tmp_path):
    import numpy as np
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage
    from scripts.rtstruct import rtstruct_mask

    def square(half):  # around voxel (3, 5) of slice 2 of a grid of 2 mm that starts at (-10, -8, 0) LPS
        x, y = 3 * 2 - 10, 5 * 2 - 8
        corners = [(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)]
        contour = Dataset()
        contour.ContourData = [v for a, b in corners for v in (a, b, 6.0)]
        return contour

    plan, roi, contours = Dataset(), Dataset(), Dataset()
    roi.ROIName, roi.ROINumber, contours.ReferencedROINumber = "GTV-1", 1, 1
    contours.ContourSequence = [square(5.0), square(1.0)]
    plan.StructureSetROISequence, plan.ROIContourSequence = [roi], [contours]
    plan.SOPClassUID, plan.SOPInstanceUID = RTStructureSetStorage, "1.2.3"
    plan.file_meta = FileMetaDataset()
    plan.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    plan.save_as(tmp_path / "plan.dcm", enforce_file_format=True)
    affine = np.array([[-2.0, 0, 0, 10], [0, -2, 0, 8], [0, 0, 3, 0], [0, 0, 0, 1]])
    mask = rtstruct_mask(tmp_path / "plan.dcm", "GTV-1", affine, (11, 9, 4))
    expected = np.zeros((11, 9, 4), dtype=np.uint8)
    expected[1:6, 3:8, 2] = 1
    expected[3, 5, 2] = 0
    np.testing.assert_array_equal(mask, expected)
    with pytest.raises(ValueError, match=r"`roi` must be one of \['GTV-1'\], got 'heart'"):
        rtstruct_mask(tmp_path / "plan.dcm", "heart", affine, (11, 9, 4))
