"""A bright voxel at a known point of the patient is found there, whatever the file and the plane of the slices."""

import shutil
import zipfile

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch

from monai_mil_ext.apps.bundle import save_model
from monai_mil_ext.networks.nets import ABMIL
from tests.scans import write_enhanced, write_mha, write_nifti, write_nrrd, write_series

SHAPE, SPACING, POINT = (7, 6, 5), (0.9, 0.7, 2.5), (5, 1, 3)  # voxels, mm, index of the bright voxel
ORIGIN = np.array([-10.0, -20.0, 30.0])  # LPS mm of the first voxel, as in tests.scans
ORIENTATIONS = {
    "axial": (1, 0, 0, 0, 1, 0),
    "prone": (-1, 0, 0, 0, -1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "oblique": (0.8, 0.6, 0, 0, 0, -1),
    "double oblique": (0.8, 0.48, 0.36, 0, 0.6, -0.8),
}


def affine_of(orientation):
    """Return the affine in RAS mm of voxels (column, row, slice)."""
    row, column = np.array(orientation[:3], float), np.array(orientation[3:], float)
    lps = np.eye(4)
    lps[:3] = np.stack([row * SPACING[0], column * SPACING[1], np.cross(row, column) * SPACING[2], ORIGIN], axis=1)
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def phantom():
    """Return Hounsfield units with one bright voxel."""
    array = np.random.default_rng(0).normal(-500, 20, SHAPE).round().clip(-1000, 0)
    array[0] = -1000
    array[POINT] = 1000
    return array.astype(np.float32)


def dicom(folder, orientation):
    write_series(folder, SHAPE, SPACING, orientation)
    for file in folder.iterdir():
        ds = pydicom.dcmread(file)
        values = (phantom()[:, :, ds.InstanceNumber - 1] - ds.RescaleIntercept) / ds.RescaleSlope
        ds.PixelData = values.T.round().astype(np.int16).tobytes()
        ds.save_as(file)
    return folder


def enhanced(path, orientation):
    """Write the frames in another order than that of their positions."""
    order = [3, 0, 4, 1, 2]
    write_enhanced(path, [0.0] * SHAPE[2], shape=SHAPE[:2])
    ds = pydicom.dcmread(path)
    row, column = np.array(orientation[:3], float), np.array(orientation[3:], float)
    shared = ds.SharedFunctionalGroupsSequence[0]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = list(orientation)
    shared.PixelMeasuresSequence[0].PixelSpacing = [SPACING[1], SPACING[0]]
    for group, k in zip(ds.PerFrameFunctionalGroupsSequence, order, strict=True):
        position = ORIGIN + k * SPACING[2] * np.cross(row, column)
        group.PlanePositionSequence[0].ImagePositionPatient = [round(float(mm), 6) for mm in position]
    ds.PixelData = phantom()[:, :, order].T.astype(np.int16).tobytes()
    ds.save_as(path)
    return path


def zipped(path, orientation):
    folder = dicom(path.with_suffix(""), orientation)
    with zipfile.ZipFile(path, "w") as file:
        for part in folder.iterdir():
            file.write(part, part.name)
    shutil.rmtree(folder)
    return path


def of_array(write):
    return lambda path, orientation: write(path, phantom(), affine_of(orientation))


CONTAINERS = {
    "series": dicom,
    "sub/folders": lambda path, orientation: dicom(path / "study" / "series", orientation).parents[1],
    "enhanced.dcm": enhanced,
    "folder/enhanced.dcm": lambda path, orientation: enhanced(path, orientation).parent,
    "series.zip": zipped,
    "volume.nii.gz": of_array(write_nifti),
    "volume.nrrd": of_array(write_nrrd),
    "volume.mha": of_array(write_mha),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A network whose attention grows with the brightest pixel of a slice."""
    folder = tmp_path_factory.mktemp("model")
    net = ABMIL(1, 2, gated=False)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(0.05)
    save_model(folder, net, task={"kind": "classification", "num_classes": 2, "activation": "softmax"})
    return folder


ENCODER = "$torch.nn.Sequential(torch.nn.AdaptiveMaxPool2d(1), torch.nn.Flatten())"


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table of the phantom in all orientations and containers."""
    folder = tmp_path_factory.mktemp("phantoms")
    rows = ["case_id,image"]
    for orientation, cosines in ORIENTATIONS.items():
        for number, (container, write) in enumerate(CONTAINERS.items()):
            path = folder / orientation / str(number) / container
            path.parent.mkdir(parents=True)
            rows.append(f"{orientation.replace(' ', '_')}-{number},{write(path, cosines).relative_to(folder)}")
    (folder / "scans.csv").write_text("\n".join(rows))
    return folder / "scans.csv"


@pytest.mark.slow(buys="a known point is found in every orientation, container and plane")
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_map_is_highest_at_the_known_point(start, model, table, tmp_path, plane):
    options = {"encoder": ENCODER, "in_features": 1, "plane": plane, "spatial_size": None, "pictures": []}
    paths = {"cohort": str(table), "ckpt_dir": str(model), "output_dir": str(tmp_path)}
    start("inference", "cohort_inference", **paths, **options).run()
    for orientation, cosines in ORIENTATIONS.items():
        for number, container in enumerate(CONTAINERS):
            folder = tmp_path / f"{orientation.replace(' ', '_')}-{number}"
            (file,) = folder.glob("*.nii.gz")
            _check_map(nib.load(file), affine_of(cosines) @ [*POINT, 1], plane, f"{container}, {orientation}")


def _check_map(image, point, plane, case):
    index = np.linalg.inv(image.affine) @ point
    np.testing.assert_allclose(index, index.round(), atol=1e-3, err_msg=case)
    scores, voxel = image.get_fdata(), tuple(index[:3].round().astype(int))
    axes = image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0)
    axis = int(np.abs(axes[["sagittal", "coronal", "axial"].index(plane)]).argmax())
    slices = scores.max(axis=tuple({0, 1, 2} - {axis}))
    assert sorted(scores.shape) == sorted(SHAPE), case
    assert slices.argmax() == voxel[axis], case
    assert scores[voxel] == slices.max() > np.sort(slices)[-2], case
