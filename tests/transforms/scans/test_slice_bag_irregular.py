"""Tests of bags of irregular series: true positions, masks, and the way back, as they are and resampled."""

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Compose, CropForegroundd, Flipd, Invertd, Orientationd, Spacingd

from monai_mil_ext.data import FeatureCache, write_nifti
from monai_mil_ext.losses import NormalGuidanceLoss
from monai_mil_ext.transforms import (
    EncodeInstancesd,
    LoadBagd,
    LoadMaskd,
    LoadScan,
    LoadScand,
    MaskToInstanceLabeld,
    SliceBag,
    SliceBagd,
    SliceScoresToVolumed,
    SliceSelection,
    VolumeTokens,
)
from monai_mil_ext.utils import InputError
from tests.dicom_annotations import FRAME, write_contours, write_segments
from tests.scans import write_series

CASES = {
    "gap": ([0, 2.5, 7.5, 10], 0.0),
    "varying steps": ([0, 2, 5, 10], 0.0),
    "tilt": ([0, 2.5, 5, 7.5], 0.9),
    "tilt and gap": ([0, 2.5, 5, 12.5], [0, 0.45, 0.9, 2.25]),
    "one slice off": ([0, 2.5, 5, 7.5], [0, 0, 3, 0]),
}
RAS = (("L", "R"), ("P", "A"), ("I", "S"))


def write_case(folder, name, **tags):
    heights, shift = CASES[name]
    return write_series(folder, heights=np.array(heights, dtype=float), shift=shift, FrameOfReferenceUID=FRAME, **tags)


@pytest.mark.parametrize("name", CASES)
def test_positions_are_those_of_the_headers(tmp_path, name):
    array = write_case(tmp_path / "s", name)
    with pytest.raises(InputError, match="`irregular` can be allow or resample") as error:
        LoadScand("image")({"image": tmp_path / "s"})
    assert error.value.option == "--irregular allow"
    item = SliceBagd("image")(LoadScand("image", irregular="allow")({"image": tmp_path / "s"}))
    heights = CASES[name][0]
    np.testing.assert_allclose(item["position"], 30 + np.array(heights), atol=1e-5)
    assert item["slice_index"].tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(item["image"][:, 0], array.transpose(2, 1, 0))
    assert item["validity"].all()
    (note,) = item["image"].meta["notes"]
    assert "read as they are" in note


@pytest.mark.parametrize(
    ("orientation", "plane"), [((1, 0, 0, 0, 0, -1), "coronal"), ((0, 1, 0, 0, 0, -1), "sagittal")]
)
@pytest.mark.parametrize("name", CASES)
def test_other_series_are_cut_in_their_own_plane_only(tmp_path, name, orientation, plane):
    write_case(tmp_path / "s", name, orientation=orientation)
    scan = LoadScan(irregular="allow")(tmp_path / "s")
    position = SliceBag(plane)(scan).position
    assert sorted(np.round(position.diff().tolist(), 4)) == sorted(np.diff(CASES[name][0]))
    with pytest.raises(
        InputError, match=f"slices of an irregular series, '{plane}', got 'axial'; .* resample"
    ) as error:
        SliceBag("axial")(scan)
    assert error.value.option == "--irregular resample"
    with pytest.raises(InputError, match="must be a regular grid of voxels for tokens, got the slices of an irregular"):
        VolumeTokens(torch.nn.Conv3d(1, 2, 2))(scan)
    resampled = LoadScan(irregular="resample")(tmp_path / "s")
    for other in ("axial", "coronal", "sagittal"):
        assert len(SliceBag(other)(resampled).position) in resampled.shape
    VolumeTokens(torch.nn.Conv3d(1, 2, 2))(resampled)


def test_slices_in_a_gap_of_a_resampled_series_are_not_valid(tmp_path):
    write_case(tmp_path / "s", "gap")
    slices = SliceBag()(LoadScan(irregular="resample")(tmp_path / "s"))
    np.testing.assert_allclose(slices.position, [30, 32.5, 35, 37.5, 40])
    assert slices.validity.tolist() == [True, True, False, True, True]


@pytest.mark.parametrize("fill", ["nearest", "linear"])
def test_scores_of_slices_left_out_are_filled_by_millimeters(tmp_path, fill):
    write_series(tmp_path / "s", heights=np.array([0, 1.0, 5, 9]))
    load, cut = LoadScand("image", irregular="allow"), SliceBagd("image", selection=SliceSelection(stride=3))
    item = cut(load({"image": tmp_path / "s"}))
    item["scores"] = torch.tensor([0.0, 0.9])
    volume = SliceScoresToVolumed("scores", fill=fill)(item)["scores"]
    expected = {"nearest": [0, 0, 0.9, 0.9], "linear": [0, 0.1, 0.5, 0.9]}[fill]
    np.testing.assert_allclose(volume[0, 2, 3], expected, atol=1e-6)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(list(CASES)),
    axcodes=st.sampled_from(["RAS", "LPS", "ASR", "SPL"]),
    flip=st.sampled_from([0, 1, 2]),
    pixel=st.sampled_from([None, 0.5, 1.2]),
)
def test_scores_return_to_the_slices_through_transforms_of_monai(tmp_path_factory, name, axcodes, flip, pixel):
    folder = tmp_path_factory.mktemp("series")
    array = write_case(folder, name)
    load = LoadScand("image", irregular="allow")
    within = [] if pixel is None or CASES[name][1] else [Spacingd("image", (pixel, pixel, -1))]
    crop = CropForegroundd("image", "image", select_fn=lambda x: x > array[..., 0].max())
    transforms = Compose(
        [*within, crop, Orientationd("image", axcodes, labels=RAS), Flipd("image", flip), SliceBagd("image")]
    )
    scan = load({"image": folder})
    item = transforms(scan)
    kept = np.array(CASES[name][0])[-len(item["position"]) :]
    assert len(kept) == 3
    np.testing.assert_allclose(item["position"], 30 + kept, atol=1e-4)
    by_item = SliceScoresToVolumed("scores")({**item, "scores": torch.arange(1.0, 4)})["scores"]
    write_nifti(folder / "by_item.nii.gz", by_item)
    item["scores"] = MetaTensor(torch.arange(1.0, 4))
    volume = Invertd("scores", transform=transforms, orig_keys="image", nearest_interp=True)(item)["scores"]
    assert volume.shape == scan["image"].shape
    np.testing.assert_allclose(volume[0, 3, 2], [0, 1, 2, 3], atol=1e-3)
    write_nifti(folder / "by_inverse.nii.gz", volume)
    for file, scores in (("by_item", [1, 2, 3]), ("by_inverse", [0, 1, 2, 3])):
        read = nib.load(folder / f"{file}.nii.gz")
        heights, shifts = (np.array(value)[-len(scores) :] for value in _places(name))
        for height, shift, score in zip(heights, shifts, scores, strict=True):
            # a point in the middle of each slice, in RAS mm
            voxel = np.linalg.inv(read.affine) @ [10 - shift - 2.7, 20 - 1.4, 30 + height, 1]
            assert read.get_fdata()[tuple(np.rint(voxel[:3]).astype(int))] == pytest.approx(score, abs=1e-3)


def test_slices_of_a_tilted_series_that_are_resampled_are_refused(tmp_path):
    write_case(tmp_path / "s", "tilt")  # Spacingd makes a grid without shear
    item = Spacingd("image", (0.5, 0.5, -1))(LoadScand("image", irregular="allow")({"image": tmp_path / "s"}))
    with pytest.raises(InputError, match=r"got one that was resampled or padded across them; .* resample") as error:
        SliceBagd("image")(item)
    assert error.value.option == "--irregular resample"


def _places(name):
    heights, shift = CASES[name]
    return heights, np.arange(4) * shift if np.isscalar(shift) else shift


def test_scores_in_gaps_are_nan_in_the_file_of_an_allowed_series(tmp_path):
    write_case(tmp_path / "s", "gap")
    item = SliceBagd("image")(LoadScand("image", irregular="allow")({"image": tmp_path / "s"}))
    volume = SliceScoresToVolumed("scores")({**item, "scores": torch.tensor([0.1, 0.2, 0.3, 0.4])})["scores"]
    write_nifti(tmp_path / "scores.nii.gz", volume)
    read = nib.load(tmp_path / "scores.nii.gz")
    np.testing.assert_allclose(read.get_fdata()[2, 2], [0.1, 0.2, np.nan, 0.3, 0.4], atol=1e-6)
    np.testing.assert_allclose(read.affine @ [0, 0, 4, 1], [10, 20, 40, 1], atol=1e-5)


def test_feature_files_keep_the_places_of_slices(tmp_path):
    write_case(tmp_path / "s", "gap")
    write_series(tmp_path / "regular")
    places = ["affine", "spatial_shape", "slice_position", "slice_thickness"]
    steps = [LoadScand("image", irregular="allow"), SliceBagd("image"), EncodeInstancesd("image", torch.nn.Flatten())]
    cache = FeatureCache(tmp_path / "features", Compose(steps), keys=["image", "position", "slice_index", *places])
    scans = [{"case_id": case, "patient": case, "image": str(tmp_path / case)} for case in ("s", "regular")]
    for item, expected in zip(cache(scans), ([1, 2, np.nan, 3, 4], [1, 2, 3, 4]), strict=True):
        bag = LoadBagd(["image", "position", "slice_index", *places], allow_missing_keys=True)(item)
        volume = SliceScoresToVolumed("scores")({**bag, "scores": torch.arange(1.0, 5)})["scores"]
        write_nifti(tmp_path / "scores.nii", volume)
        np.testing.assert_array_equal(nib.load(tmp_path / "scores.nii").get_fdata()[3, 2], expected)


def labels_of(folder, reference, irregular, **options):
    item = {"image": folder, "reference": reference}
    for transform in (
        LoadMaskd("reference", irregular=irregular, **options),
        LoadScand("image", irregular=irregular),
        SliceBagd(["image", "reference"], mode=("bilinear", "nearest")),
        MaskToInstanceLabeld("reference"),
    ):
        item = transform(item)
    return dict(zip(np.round(item["position"].tolist(), 3).tolist(), item["reference"].tolist(), strict=True))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", ["contours", "segments"])
def test_labels_of_slices_follow_masks_and_contours(tmp_path, name, kind):
    folder = tmp_path / "s"
    write_case(folder, name)
    heights, shift = _places(name)
    marked = 2
    if kind == "contours":
        # a square of two by two pixels in the middle, in LPS mm
        corners = np.array(
            [
                [-10 + 0.9 * x + shift[marked], -20 + 0.7 * y, 30 + heights[marked]]
                for x, y in ((1.5, 1.5), (3.5, 1.5), (3.5, 3.5), (1.5, 3.5))
            ]
        )
        reference = write_contours(tmp_path / "rs.dcm", {"GTV": [corners]})
    else:
        mask = np.zeros((6, 5, 4), dtype=np.uint8)
        mask[2:4, 2:4, marked] = 1
        reference = write_segments(tmp_path / "seg.dcm", folder, {"GTV": mask}, irregular="allow")
    labels = labels_of(folder, reference, "allow")
    assert labels == {30 + height: int(k == marked) for k, height in enumerate(heights)}
    resampled = labels_of(folder, reference, "resample")
    marked_heights = [height for height, label in resampled.items() if label]
    assert marked_heights
    assert max(abs(np.array(marked_heights) - 30 - heights[marked])) <= max(np.diff(heights)) / 2


def test_a_mask_on_a_regular_grid_is_no_mask_of_an_irregular_series(tmp_path):
    write_case(tmp_path / "s", "gap")
    affine = np.diag([-0.9, -0.7, 10 / 3, 1.0])
    affine[:3, 3] = [10, 20, 30]
    nib.save(nib.Nifti1Image(np.ones((6, 5, 4), np.uint8), affine), tmp_path / "mask.nii.gz")
    with pytest.raises(ValueError, match="`keys` must share one geometry"):
        labels_of(tmp_path / "s", tmp_path / "mask.nii.gz", "allow")
    affine[2, 2] = 2.5
    nib.save(nib.Nifti1Image(np.ones((6, 5, 5), np.uint8), affine), tmp_path / "mask.nii.gz")
    assert set(labels_of(tmp_path / "s", tmp_path / "mask.nii.gz", "resample").values()) == {1}


@pytest.mark.parametrize("name", ["gap", "varying steps", "tilt and gap"])
def test_normal_guidance_in_millimeters_equals_its_reference(tmp_path, name):
    write_case(tmp_path / "s", name)
    position = SliceBagd("image")(LoadScand("image", irregular="allow")({"image": tmp_path / "s"}))["position"]
    attention = torch.tensor([0.1, 0.5, 0.3, 0.1], dtype=torch.float64)
    loss = NormalGuidanceLoss()(attention.view(1, 4, 1), positions=position.double().view(1, 4))
    p, a = 30 + np.array(CASES[name][0], dtype=np.float64), attention.numpy()
    mean = (p * a).sum()
    target = np.exp(-((p - mean) ** 2) / (2 * ((p - mean) ** 2 * a).sum()))
    target /= target.sum()
    assert loss.item() == pytest.approx((target * np.log(target / a)).sum(), rel=1e-6)
    assert loss.item() != pytest.approx(NormalGuidanceLoss()(attention.view(1, 4, 1)).item(), rel=1e-3)


def test_a_sheared_nifti_keeps_its_positions(tmp_path):
    affine = np.array([[-0.9, 0, 0, 10], [0, -0.7, 0.5, 20], [0, 0, 2.5, 30], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((6, 5, 4), np.float32), affine), tmp_path / "tilt.nii.gz")
    position = SliceBag()(LoadScan()(tmp_path / "tilt.nii.gz")).position
    np.testing.assert_allclose(position, [30, 32.5, 35, 37.5], atol=1e-5)
