"""Tests of LoadScan: all formats, without patient data and paths."""

import logging

import numpy as np
import pytest
import torch
from monai.data import ITKReader, MetaTensor, PydicomReader
from monai.transforms import Compose, LoadImage, ScaleIntensityRanged

from monai_mil_ext.data import ScanReader
from monai_mil_ext.transforms import LoadScan, LoadScand, SliceBag, SliceBagd
from monai_mil_ext.utils import InputError
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
    ("low", "high", "option"),
    [
        (0, 255, "--normalization percentile"),
        (0, 1, "--normalization percentile"),
        (-3, 5, "--normalization percentile"),  # z-scores
        (0, 4095, "--normalization percentile"),  # MR, or a CT without its intercept
        (-40, 2500, "--normalization percentile"),  # MR with overshoots of a resampling
        (-150, 3000, "--normalization percentile"),  # MR with noise about zero
        (0, 0, ""),
        (3, 3, ""),
        (-1000, -1000, ""),
    ],
)
def test_load_scan_refuses_values_that_are_no_hounsfield_units(tmp_path, low, high, option):
    array = np.full((6, 5, 4), low, np.float32)
    array[0, 0, 0] = high
    path = write_nifti(tmp_path / "s.nii", array, np.diag([0.5, 0.5, 2, 1]))
    got = f"got values {low} to {high}" if low < high else f"must have voxels that differ, got {low} in all of them"
    with pytest.raises(InputError, match=got) as error:
        LoadScan(hounsfield=True)(path)
    assert error.value.option == option
    assert (error.value.facts["shape"], error.value.facts["spacing"]) == ((6, 5, 4), (0.5, 0.5, 2.0))
    assert LoadScan()(path).meta["highest"] == high


@pytest.mark.parametrize(
    ("low", "high"),
    [(-1024, 3071), (-1024, 30000), (-3024, 255), (-60, 180), (-120, 1500), (-1000, 0)],
)
def test_load_scan_accepts_values_of_a_ct(tmp_path, low, high):
    array = np.full((6, 5, 4), low, np.float32)
    array[0, 0, 0] = high
    path = write_nifti(tmp_path / "s.nii", array, np.eye(4))
    assert LoadScan(hounsfield=True)(path).meta["lowest"] == low


@pytest.mark.parametrize("modality", ["MR", "PT", "US", "MG", "NM"])
def test_load_scan_refuses_another_modality_before_a_ct_window(tmp_path, modality):
    write_series(tmp_path / "s", Modality=modality)
    match = f"must be a CT for a window in Hounsfield units, got modality {modality}"
    with pytest.raises(InputError, match=match) as error:
        LoadScan(hounsfield=True)(tmp_path / "s")
    assert error.value.option == "--normalization percentile"


def test_load_scan_takes_a_ct_before_a_ct_window(tmp_path):
    write_series(tmp_path / "s")
    assert LoadScan(hounsfield=True)(tmp_path / "s").meta["modality"] == "CT"


@pytest.mark.parametrize(("fill_nan", "value"), [("lowest", -7.0), (0, 0.0), ("-3.5", -3.5)])
@pytest.mark.parametrize("write", [write_nifti, write_nrrd])
def test_load_scan_fills_nan_and_says_so(tmp_path, fill_nan, value, write):
    array = voxels((6, 5, 4)).astype(np.float32) - 7
    array[3:] = np.nan
    path = write(tmp_path / ("s.nii" if write is write_nifti else "s.nrrd"), array, np.eye(4)) or tmp_path / "s.nrrd"
    with pytest.raises(InputError, match=r"must have finite voxels, got 60 that are NaN or infinite\.") as error:
        LoadScan()(path)
    assert error.value.option == "--fill_nan lowest"
    image = LoadScan(fill_nan=fill_nan)(path)
    np.testing.assert_array_equal(image[0].numpy(), np.nan_to_num(array, nan=value))
    assert image.meta["notes"] == [f"60 voxels that were NaN (50%) were filled with {value:g}"]
    assert image.meta["lowest"] == min(-7.0, value)
    assert LoadScan(fill_nan=fill_nan)(write_nifti(tmp_path / "w.nii", array[:3], np.eye(4))).meta["notes"] == []


@pytest.mark.parametrize("values", [[np.nan, np.inf], [-np.inf, 0]])
def test_load_scan_fills_no_infinite_voxels(tmp_path, values):
    array = voxels((6, 5, 4)).astype(np.float32)
    array[0, 0, :2] = values
    path = write_nifti(tmp_path / "s.nii", array, np.eye(4))
    for fill_nan in (None, "lowest", 0):
        with pytest.raises(InputError, match=r"must have finite voxels, got [12] that are NaN or infinite") as error:
            LoadScan(fill_nan=fill_nan)(path)
        assert error.value.option == ""


def test_load_scan_fills_no_scan_without_a_value(tmp_path):
    path = write_nifti(tmp_path / "s.nii", np.full((6, 5, 4), np.nan, np.float32), np.eye(4))
    for fill_nan in (None, "lowest", 0):
        with pytest.raises(InputError, match=r"must have finite voxels, got 120 that are NaN or infinite") as error:
            LoadScan(fill_nan=fill_nan)(path)
        assert error.value.option == ""


@pytest.mark.parametrize("fill_nan", ["highest", "", "nan", True, float("nan"), float("inf"), [0]])
def test_load_scan_refuses_other_values_for_nan(fill_nan):
    with pytest.raises(ValueError, match="`fill_nan` must be a finite number, 'lowest' or None"):
        LoadScan(fill_nan=fill_nan)
