import gzip
import shutil

import numpy as np
import pytest

from monai_mil_ext.data import ScanReader, read_scan_header
from monai_mil_ext.utils import InputError
from tests.scans import voxels, write_enhanced, write_mha, write_nifti, write_nrrd, write_series

AFFINE = np.array([[0.9, 0, 0, -10], [0, 0.7, 0, -20], [0, 0, 2.5, 30], [0, 0, 0, 1.0]])
TURNED = AFFINE[[2, 0, 1, 3]]  # the slices lie along the first axis of RAS


def compare(path):
    """Compare a header with the whole scan as ``ScanReader`` reads it."""
    reader, header = ScanReader(), read_scan_header(path)
    array, meta = reader.get_data(reader.read(path))
    assert header.shape == array.shape
    assert np.allclose(header.affine[:3, :3], meta["affine"][:3, :3], atol=1e-6)
    assert header.container == meta["container"]
    if header.sample is not None:
        assert array.min() <= header.sample[0] < header.sample[1] <= array.max()
    return header


def test_the_header_of_a_series_is_that_of_the_scan(tmp_path):
    write_series(tmp_path / "a")
    header = compare(tmp_path / "a")
    assert (header.modality, header.plane, header.num_slices("axial")) == ("CT", "axial", 4)
    assert header.spacing == pytest.approx((0.9, 0.7, 2.5))


def test_the_header_of_an_enhanced_object_is_that_of_the_scan(tmp_path):
    write_enhanced(tmp_path / "a.dcm", [0, 3, 6])
    assert compare(tmp_path / "a.dcm").container == "enhanced DICOM"


@pytest.mark.parametrize(("write", "name"), [(write_nifti, "a.nii"), (write_nifti, "a.nii.gz"), (write_nrrd, "a.nrrd")])
@pytest.mark.parametrize(("affine", "plane", "counts"), [(AFFINE, "axial", (6, 5, 4)), (TURNED, "sagittal", (4, 6, 5))])
def test_the_header_of_a_file_is_that_of_the_scan(tmp_path, write, name, affine, plane, counts):
    header = compare(write(tmp_path / name, voxels((6, 5, 4)), affine))
    assert header.plane == plane
    assert tuple(map(header.num_slices, ("sagittal", "coronal", "axial"))) == counts


def test_the_header_of_a_metaimage_and_of_a_zip_is_that_of_the_scan(tmp_path):
    compare(write_mha(tmp_path / "a.mha", voxels((6, 5, 4)), AFFINE))
    write_series(tmp_path / "a")
    shutil.make_archive(str(tmp_path / "b"), "zip", tmp_path / "a")
    compare(tmp_path / "b.zip")


def test_empty_slices_at_the_start_of_a_compressed_file_are_passed_over(tmp_path):
    array = np.zeros((256, 256, 40), np.int16)
    array[:, :, 30:] = 900
    assert read_scan_header(write_nifti(tmp_path / "a.nii.gz", array, AFFINE)).sample == (0, 900)


def test_a_sample_is_read_only_if_asked_for(tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz", voxels((6, 5, 4)), AFFINE)
    assert read_scan_header(path, sample=False).sample is None


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_file_that_ends_early_is_refused(tmp_path, name):
    path = write_nifti(
        tmp_path / name, np.random.default_rng(0).integers(0, 999, (128, 128, 100)).astype(np.int16), AFFINE
    )
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(InputError, match="fewer voxels than its header says"):
        read_scan_header(path)


def test_a_gzip_file_of_several_members_is_read(tmp_path):
    content = write_nifti(tmp_path / "b.nii", voxels((6, 5, 4)), AFFINE).read_bytes()
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]))
    assert compare(path).shape == (6, 5, 4)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 3, 2)])
def test_other_than_a_volume_is_refused_with_its_shape(tmp_path, shape):
    path = write_nifti(tmp_path / "a.nii", np.zeros(shape, np.float32), AFFINE)
    with pytest.raises(InputError, match="must be one 3D scalar volume") as info:
        read_scan_header(path)
    assert info.value.facts["shape"] == shape


@pytest.mark.parametrize("name", ["doe.nii", "doe.nii.gz", "doe.nrrd", "doe.mha", "doe.zip", "doe.dcm", "doe"])
def test_a_damaged_file_is_refused_without_its_name(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04 no scan")
    with pytest.raises(ValueError, match=r"`image` must be") as info:
        read_scan_header(tmp_path / name)
    assert "doe" not in str(info.value).lower()


def test_a_missing_file_and_voxels_without_a_size_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="must be a scan that exists"):
        read_scan_header(tmp_path / "a.nii")
    path = write_nifti(tmp_path / "b.nii", voxels((6, 5, 4)), np.diag([1, 1, 1, 1.0]))
    content = bytearray(path.read_bytes())
    content[280:328] = bytes(48)  # the affine
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match="voxels of a positive, finite size"):
        read_scan_header(path)
