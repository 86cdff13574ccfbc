"""Tests of LoadScan: all formats, without patient data and paths."""

import logging
import warnings

import numpy as np
import pytest
import torch
from monai.data import ITKReader, MetaTensor, PydicomReader
from monai.transforms import Compose, LoadImage, ScaleIntensityRanged

from monai_mil_ext.data import ScanReader
from monai_mil_ext.transforms import LoadScan, LoadScand, SliceBag, SliceBagd
from tests.scans import SECRETS, voxels, write_mha, write_nifti, write_nrrd, write_series


@pytest.mark.parametrize("kind", ["dicom", "nifti", "nrrd", "mha"])
def test_load_scan_returns_the_same_scan_for_every_format(tmp_path, kind):
    expected = write_series(tmp_path / "dicom")
    affine = np.array([[-0.9, 0, 0, 10], [0, -0.7, 0, 20], [0, 0, 2.5, 30], [0, 0, 0, 1]])
    write_nifti(tmp_path / "nifti.nii.gz", expected.astype(np.float32), affine)
    write_nrrd(tmp_path / "nrrd.nrrd", expected.astype(np.float32), affine)
    write_mha(tmp_path / "mha.mha", expected.astype(np.float32), affine)
    image = LoadScan()(next(p for p in tmp_path.iterdir() if p.name.startswith(kind)))
    assert isinstance(image, MetaTensor)
    assert image.dtype == torch.float32
    np.testing.assert_array_equal(image[0].numpy(), expected)
    np.testing.assert_allclose(image.affine, affine, atol=1e-6)
    assert (image.meta["lowest"], image.meta["highest"]) == (expected.min(), expected.max())
    assert image.meta.get("modality") == ("CT" if kind == "dicom" else None)
    bag, position, *_ = SliceBag()(image)
    np.testing.assert_array_equal(bag[:, 0], expected.transpose(2, 1, 0))
    np.testing.assert_allclose(position, 30 + 2.5 * np.arange(4))


@pytest.mark.parametrize("reader", [ITKReader, PydicomReader])
@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (1, 0, 0, 0, -1, 0), (0.8, 0.6, 0, -0.6, 0.8, 0)])
def test_load_scan_gives_the_slices_of_load_image(tmp_path, reader, orientation):
    """Pipelines may keep MONAI's LoadImage: its arrays may be flipped, but bags and positions are the same."""
    write_series(tmp_path / "s", orientation=orientation)
    ours = SliceBag()(LoadScan()(tmp_path / "s"))
    theirs = SliceBag()(LoadImage(ensure_channel_first=True)(tmp_path / "s", reader=reader()))
    np.testing.assert_array_equal(theirs.bag, ours.bag)
    np.testing.assert_allclose(theirs.position, ours.position, atol=1e-4)


def test_load_scan_selects_the_series_by_constructor_or_item(tmp_path):
    write_series(tmp_path / "s", (6, 5, 4), series=1)
    write_series(tmp_path / "s", (6, 5, 3), series=2)
    assert LoadScan("2")(tmp_path / "s").shape == (1, 6, 5, 3)
    load = LoadScand("image", series="2")
    assert load({"image": tmp_path / "s"})["image"].shape == (1, 6, 5, 3)
    assert load({"image": tmp_path / "s", "series": "1"})["image"].shape == (1, 6, 5, 4)


def test_load_scan_keeps_no_patient_data(tmp_path, caplog, capfd):
    source = tmp_path / "Secretname" / "scan"
    write_series(source)
    caplog.set_level(logging.DEBUG)
    pipeline = Compose([LoadScand("image"), ScaleIntensityRanged("image", 0, 1), SliceBagd("image")])
    loaded = LoadScand("image")({"image": source})["image"]
    text = " ".join([repr(loaded.meta), repr(loaded.applied_operations), repr(pipeline({"image": str(source)}))])
    text += caplog.text + "".join(capfd.readouterr())
    for secret in (*SECRETS.values(), "Secretname", str(tmp_path)):
        assert secret not in text


def test_load_scan_refuses_two_series_without_trying_other_readers(tmp_path):
    """If passed to LoadImage's constructor, the reader's error would be ignored and the series mixed."""
    for series in (1, 2):
        write_series(tmp_path / "s", series=series)
    assert LoadImage(reader=ScanReader())(tmp_path / "s").shape[-1] in (4, 8)
    with pytest.raises(ValueError, match="must be a folder with one series, got 2"):
        LoadScan()(tmp_path / "s")


def test_load_scan_counts_voxels_that_are_not_finite(tmp_path):
    array = voxels((6, 5, 4)).astype(np.float32)
    array[0, 0, :3] = [np.nan, np.inf, -np.inf]
    path = write_nifti(tmp_path / "s.nii", array, np.eye(4))
    with pytest.raises(ValueError, match=r"`image` must have finite voxels, got 3 that are NaN or infinite\."):
        LoadScan()(path)


def test_load_scand_skips_missing_keys(tmp_path):
    path = write_nifti(tmp_path / "s.nii", voxels((6, 5, 4)), np.eye(4))
    out = LoadScand(["image", "reference"], allow_missing_keys=True)({"image": path, "case_id": "a"})
    assert set(out) == {"image", "case_id"}
    with pytest.raises(KeyError, match="reference"):
        LoadScand(["image", "reference"])({"image": path})


def test_load_scan_has_the_modality_and_the_range_of_values(tmp_path):
    expected = write_series(tmp_path / "s", Modality="MR")
    write_nifti(tmp_path / "s.nii", expected.astype(np.float32), np.eye(4))
    for name, modality in (("s", "MR"), ("s.nii", None)):
        image = LoadScand("image")({"image": tmp_path / name})["image"]
        assert image.meta.get("modality") == modality
        assert (image.meta["lowest"], image.meta["highest"]) == (expected.min(), expected.max())
        bag = Compose([ScaleIntensityRanged("image", 0, 1, 0, 1, clip=True), SliceBagd("image")])({"image": image})
        assert bag["image"].meta["lowest"] == expected.min()


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(0, 255, "values 0..255"), (0, 0, "got 0 in all"), (3, 3, "got 3 in all"), (0, 1, "values 0..1")],
)
def test_load_scan_warns_of_values_that_are_no_hounsfield_units(tmp_path, low, high, text):
    array = np.full((6, 5, 4), low, np.float32)
    array[0, 0, 0] = high
    path = write_nifti(tmp_path / "s.nii", array, np.eye(4))
    with pytest.warns(UserWarning, match=text):
        LoadScan(hounsfield=True)(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LoadScan()(path)


def test_load_scan_warns_of_another_modality_before_a_ct_window(tmp_path):
    write_series(tmp_path / "mr", Modality="MR")
    write_series(tmp_path / "ct")
    with pytest.warns(UserWarning, match="must be a CT for a window in Hounsfield units, got modality MR"):
        LoadScan(hounsfield=True)(tmp_path / "mr")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LoadScan(hounsfield=True)(tmp_path / "ct")
