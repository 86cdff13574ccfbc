"""Tests of the source of slices that a preprocessing and a scan state."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    CopyItemsd,
    Lambdad,
    NormalizeIntensityd,
    ScaleIntensityRanged,
    ScaleIntensityRangePercentilesd,
)

from monai_mil_ext.transforms import (
    EncodeInstancesd,
    LoadMaskd,
    LoadScand,
    SliceBagd,
    SliceSelection,
    scan_preprocessing,
    scan_source,
)
from monai_mil_ext.utils import SourceMismatchError
from monai_mil_ext.utils.exceptions import root_cause
from tests.scans import write_nifti, write_series


def window(low=-1000, high=400, keys="image", clip=True):
    return ScaleIntensityRanged(keys, low, high, 0, 1, clip=clip)


def steps(scale=None, slicer=None):
    return [LoadScand("image"), scale or window(), slicer or SliceBagd("image", "axial", 8)]


BASE = scan_source(Compose(steps()))


def test_scan_source_reads_window_plane_size_and_encoder_from_the_transforms():
    encode = EncodeInstancesd("image", torch.nn.Flatten())
    source = scan_source(Compose([*steps(slicer=SliceBagd("image", "sagittal", 16)), encode]))
    assert (source.window, source.normalization) == ((-1000.0, 400.0), None)
    assert (source.plane, source.spatial_size, source.encoder) == ("sagittal", (16,), "Flatten")
    assert scan_source(encode, encoder="pixels").encoder == "pixels"


def test_scan_source_changes_with_the_weights_of_the_encoder():
    one, other = (torch.nn.Linear(4, 2) for _ in range(2))
    first, second, again = (scan_source(EncodeInstancesd("image", net)) for net in (one, other, one))
    assert first == again
    assert first.encoder_fingerprint != second.encoder_fingerprint


def test_scan_source_depends_neither_on_masks_and_copies_nor_on_the_type_of_a_number():
    masks = [
        LoadMaskd("reference", allow_missing_keys=True),
        LoadScand(["image", "reference"], allow_missing_keys=True),
        window(-1000.0, 400.0),
        SliceBagd(["reference", "image"], "axial", 8, mode=("nearest", "bilinear"), allow_missing_keys=True),
        CopyItemsd("image", 1, "slices"),
    ]
    assert scan_source(Compose(masks)) == BASE
    assert scan_source(scan_preprocessing(steps(), check=True)) == BASE
    assert scan_source(Compose([LoadScand("image", series="2"), *steps()[1:]])) == BASE
    assert scan_source(Compose([Compose(steps()[:2]), steps()[2]])) == BASE


@pytest.mark.parametrize(
    "changed",
    [
        steps(window(clip=False)),
        steps(slicer=SliceBagd("image", "axial", 8, mode="nearest")),
        steps(slicer=SliceBagd("image", "axial", 8, selection=SliceSelection(stride=2))),
        [*steps(), Lambdad("image", lambda x: x * 2)],
        [*steps(), lambda item: item],
        [steps()[0], steps()[2]],
    ],
)
def test_scan_source_differs_with_any_other_step(changed):
    assert scan_source(Compose(changed)).preprocessing != BASE.preprocessing


def test_scan_source_differs_with_resampling_only_among_the_options_for_irregular_series():
    sources = {
        irregular: scan_source(Compose([LoadScand("image", irregular=irregular), *steps()[1:]])).preprocessing
        for irregular in ("refuse", "allow", "resample")
    }
    assert sources["refuse"] == sources["allow"] == BASE.preprocessing
    assert sources["resample"] != BASE.preprocessing


def test_scan_source_names_a_normalization_with_its_numbers():
    source = scan_source(Compose(steps(ScaleIntensityRangePercentilesd("image", 1, 99, 0, 1))))
    assert source.window == ()
    assert source.normalization.startswith("ScaleIntensityRangePercentiles(lower=1, upper=99")
    assert BASE.compare(source).message().startswith("trained on window -1000 to 400, got normalization Scale")
    assert source.compare(BASE).message().endswith("got window -1000 to 400")
    assert scan_source(NormalizeIntensityd("image", nonzero=True)).normalization.startswith(
        "NormalizeIntensity(nonzero"
    )


def test_scan_preprocessing_states_what_a_dicom_series_says_of_itself(tmp_path):
    array = write_series(tmp_path / "s", spacing=(1.0, 1.0, 2.5), Modality="MR")
    item = scan_preprocessing(steps())({"image": str(tmp_path / "s")})
    assert {name: item[name] for name in ("modality", "lowest", "highest", "spacing")} == {
        "modality": "MR", "lowest": array.min(), "highest": array.max(), "spacing": (2.5, 2.5)
    }  # fmt: skip


def test_scan_preprocessing_leaves_out_what_a_scan_does_not_say(tmp_path):
    write_nifti(tmp_path / "s.nii", np.ones((4, 4, 1), np.float32), np.eye(4))
    item = scan_preprocessing(steps())({"image": str(tmp_path / "s.nii")})
    assert (item["lowest"], item["highest"]) == (1.0, 1.0)
    assert not {"modality", "spacing"} & item.keys()


@pytest.mark.parametrize(
    ("scale", "modality", "expected"),
    [
        (window(), "CT", "window -1000 to 400 HU"),
        (window(), "MR", "window -1000 to 400"),
        (window(0, 0.5), "CT", "window 0 to 0.5 HU"),
        (NormalizeIntensityd("image", nonzero=True), "CT", "normalization NormalizeIntensity(nonzero=True"),
        (Lambdad("image", abs), "CT", ""),
    ],
)
def test_scan_preprocessing_names_the_window_for_pictures(scale, modality, expected, tmp_path):
    write_series(tmp_path / "s", Modality=modality)
    item = scan_preprocessing(steps(scale))({"image": str(tmp_path / "s")})
    assert item.get("window", "").startswith(expected)
    assert bool(item.get("window")) is bool(expected)


class Encoder(torch.nn.Flatten):
    """Encoder that must not run."""

    def forward(self, x):
        raise AssertionError


def test_scan_preprocessing_refuses_options_before_reading_and_values_before_encoding(tmp_path):
    array = write_series(tmp_path / "s")
    transforms = [*steps(), EncodeInstancesd("image", Encoder())]
    trained = scan_source(Compose(transforms))
    stated = type(trained).from_values({**trained.to_values(), "modality": "MR"})
    other = type(trained).from_values({**trained.to_values(), "plane": "coronal"})
    assert array.size
    for source, image, reason in (
        (other, tmp_path / "missing", "trained on plane coronal, got plane axial"),
        (stated, tmp_path / "s", "trained on modality MR, got modality CT"),
    ):
        with pytest.raises(RuntimeError, match="applying transform") as error:
            scan_preprocessing(transforms, check=True, trained=source)({"image": str(image)})
        cause = root_cause(error.value)
        assert isinstance(cause, SourceMismatchError)
        assert str(cause) == reason


def test_scan_source_takes_what_a_transform_of_another_package_states():
    class LoadRows:
        source_values = {"window": [-100, 300], "spatial_size": 224}

        def __call__(self, item):
            return {**item, "image": MetaTensor(torch.zeros(1))}

    source = scan_source(LoadRows())
    assert (source.window, source.spatial_size) == ((-100.0, 300.0), (224,))


def test_scan_source_refuses_a_window_without_width():
    with pytest.raises(ValueError, match=r"`a_min` and `a_max` of a window must differ, got 40 for both\."):
        scan_source(Compose([ScaleIntensityRanged("image", 40, 40, 0, 1)]))
