"""Tests of real DICOM files of scanners: read as ITK and highdicom read them, or refused in one sentence."""

import re
import shutil
from pathlib import Path

import highdicom as hd
import itk
import numpy as np
import pydicom
import pytest

from monai_mil_ext.apps.download import extract_member, fetch_packages
from monai_mil_ext.transforms import LoadScan
from monai_mil_ext.utils import InputError

pytestmark = [pytest.mark.network, pytest.mark.slow(buys="real files of scanners are read right or refused clearly")]
REQUIREMENTS = Path(__file__).with_name("real_dicom.txt")
SINGLE = "693_J2KR 693_UNCI 693_UNCR MR-SIEMENS-DICOM-WithOverlays MR2_J2KI MR2_J2KR MR2_UNCI MR2_UNCR bad_sequence"
NO_GEOMETRY = "several frames without positions (no functional groups)"
REFUSED = {
    "emri_small": NO_GEOMETRY,
    "emri_small_RLE": NO_GEOMETRY,
    "emri_small_big_endian": NO_GEOMETRY,
    "emri_small_jpeg_2k_lossless": NO_GEOMETRY,
    "emri_small_jpeg_ls_lossless": NO_GEOMETRY,
    "color3d_jpeg_baseline": NO_GEOMETRY,
    "RG1_UNCR": "of modality CR with no ImagePositionPatient",
    "SC_rgb": "of modality OT with no ImagePositionPatient",
    "US1_J2KR": "of modality US with no PixelSpacing",
    "liver": "got 1 of modality SEG",
}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    try:
        return fetch_packages(REQUIREMENTS, tmp_path_factory.mktemp("packages"))["pydicom_data"]
    except RuntimeError as error:
        pytest.skip(str(error))


@pytest.fixture
def take(package, tmp_path):
    """Return a function that unpacks a file."""

    def unpack(name):
        extract_member(package, f"data_store/data/{name}.dcm", tmp_path / f"{name}.dcm")
        return tmp_path / f"{name}.dcm"

    return unpack


@pytest.mark.parametrize("name", [*SINGLE.split(), "explicit_VR-UN"])
def test_load_scan_agrees_with_itk_on_slices_of_scanners(take, name):
    path = take(name)
    image = LoadScan()(path)
    other = itk.imread(str(path), itk.F)
    np.testing.assert_array_equal(image[0], itk.array_from_image(other).T)
    np.testing.assert_allclose(image.affine[:3, 3], np.array(other.GetOrigin()) * [-1, -1, 1], atol=1e-4)
    np.testing.assert_allclose(image.pixdim[:2], list(other.GetSpacing())[:2], rtol=1e-6)


def test_load_scan_agrees_with_highdicom_on_an_enhanced_ct(take):
    path = take("eCT_Supplemental")
    image = LoadScan()(path)
    volume = hd.imread(path).get_volume(apply_real_world_transform=False)
    for index in np.ndindex(2, 3, 3):
        k, j, i = np.array(index) * (1, 255, 255)
        world = np.diag([-1, -1, 1, 1]) @ volume.affine @ [k, j, i, 1]
        voxel = np.linalg.inv(image.affine.numpy()) @ world
        np.testing.assert_allclose(voxel, np.rint(voxel), atol=1e-4)
        assert image[(0, *np.rint(voxel[:3]).astype(int))] == volume.array[k, j, i]
    assert image.meta["container"] == "enhanced DICOM"
    assert image.meta["instance_number"].tolist() == [2, 1]  # the normal points to the feet


@pytest.mark.parametrize("name", REFUSED)
def test_load_scan_refuses_what_is_no_stack_of_slices(take, name):
    with pytest.raises(InputError, match=re.escape(REFUSED[name])):
        LoadScan()(take(name))


def test_load_scan_reads_or_refuses_every_file_of_pydicom(tmp_path):
    """Each is a case that once broke a reader: damaged, cut, without group lengths, of odd encodings."""
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    read = []
    for path in sorted(folder.glob("*.dcm")):
        shutil.copy(path, tmp_path / "x.dcm")
        try:
            image = LoadScan()(tmp_path / "x.dcm")
        except InputError:
            continue
        ds = pydicom.dcmread(path)
        expected = ds.pixel_array * float(ds.get("RescaleSlope", 1)) + float(ds.get("RescaleIntercept", 0))
        np.testing.assert_allclose(image[0, ..., 0].T, expected, rtol=1e-6)
        read.append(path.stem)
    kinds = ["", "_RLE", "_bigendian", "_expb", "_implicit", "_jp2klossless", "_jpeg_ls_lossless"]
    assert {"693_J2KI", "CT_small", *(f"MR_small{kind}" for kind in kinds)} <= set(read)
