"""Tests of the source of instances and its comparison."""

import numpy as np
import pytest
import torch

from monai_mil_ext.data import InstanceSource, write_bag

TRAINED = InstanceSource(
    encoder="uni_v1", width=1024, mpp=(0.5,), tile_size=(256.0,), encoder_fingerprint="ab" * 32, dtype="float16"
)
CT = InstanceSource(
    plane="axial",
    window=(-1000.0, 400.0),
    spatial_size=(224, 224),
    pixel_mm=(1.0,),
    fill_nan="lowest",
    modality=("CT",),
    lowest=(-1024.0, -1000.0),
    highest=(1500.0, 3071.0),
    preprocessing="0123456789ab@0.2+1.6",
)


def changed(source, **values):
    return InstanceSource.from_values({**source.to_values(), **values})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"encoder": "gigapath"}, "trained on encoder uni_v1, got encoder gigapath"),
        ({"mpp": [2.0]}, "trained on 0.5 mpp, got 2 mpp"),
        ({"mpp": [0.5, 1.0]}, "trained on 0.5 mpp, got 0.5 mpp or 1 mpp"),
        ({"width": 768}, "trained on 1024 features, got 768 features"),
        ({"tile_size": [512]}, "trained on tiles of 256 px, got tiles of 512 px"),
        (
            {"encoder_fingerprint": "cd" * 32},
            "with fingerprint abababababab, got encoder with fingerprint cdcdcdcdcdcd",
        ),
        ({"encoder": "gigapath", "mpp": [2]}, "trained on encoder uni_v1 at 0.5 mpp, got encoder gigapath at 2 mpp"),
    ],
)
def test_compare_names_what_differs_between_tiles(values, message):
    assert message in TRAINED.compare(changed(TRAINED, **values)).message()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"plane": "coronal"}, "trained on plane axial, got plane coronal"),
        ({"window": [-160, 240]}, "trained on window -1000 to 400, got window -160 to 240"),
        ({"spatial_size": [112, 112]}, "trained on slices of 224 x 224 px, got slices of 112 x 112 px"),
        ({"pixel_mm": [2.0]}, "trained on pixels of 1 mm, got pixels of 2 mm"),
        ({"fill_nan": "0"}, "trained on NaN filled with lowest, got NaN filled with 0"),
        ({"modality": ["MR"]}, "trained on modality CT, got modality MR"),
        ({"lowest": [0.0], "highest": [255.0]}, "trained on values from -1024, got values from 0"),
        ({"preprocessing": "ffffffffffff@0.2+1.6"}, "trained on preprocessing 0123456789ab, got preprocessing ffff"),
    ],
)
def test_compare_names_what_differs_between_slices(values, message):
    assert message in CT.compare(changed(CT, **values)).message()


@pytest.mark.parametrize(
    "values",
    [
        {"mpp": [0.5034]},
        {"dtype": "float32"},
        {"lowest": [-2000.0]},  # padding outside of the field of view
        {"lowest": [-1000.0], "highest": [1300.0]},
        {"preprocessing": "ffffffffffff@0.3+1.6"},  # fingerprints of other versions can't be compared
    ],
)
def test_compare_accepts_what_is_the_same(values):
    trained = TRAINED if "mpp" in values or "dtype" in values else CT
    assert not trained.compare(changed(trained, **values))


@pytest.mark.parametrize(("trained", "other", "same"), [("mpp", "magnification", True), ("magnification", "mpp", True)])
@pytest.mark.parametrize(("mpp", "fits"), [(0.5, True), (0.4536, True), (0.25, False), (1.0, False)])
def test_compare_takes_nominal_magnifications_for_resolutions(trained, other, same, mpp, fits):
    values = {"mpp": mpp, "magnification": 20.0}
    a, b = InstanceSource.from_values({trained: values[trained]}), InstanceSource.from_values({other: values[other]})
    difference = a.compare(b)
    assert bool(difference) is not fits
    assert difference.unknown == ()


def test_compare_lists_what_the_other_source_does_not_state():
    assert TRAINED.compare(InstanceSource(width=1024)).unknown == ("encoder", "encoder_fingerprint", "mpp", "tile_size")
    assert InstanceSource().compare(TRAINED).unknown == ()


def test_compare_names_pixels_that_were_not_resampled():
    unscaled = changed(CT, pixel_mm=[])
    assert unscaled.compare(CT).message() == "trained on pixels of their own size, got pixels of 1 mm"
    other = unscaled.compare(changed(CT, preprocessing="ffffffffffff@0.2+1.6"))
    assert other.trained == ("pixels of their own size",)
    assert CT.compare(unscaled).message() == "trained on pixels of 1 mm, got pixels of their own size"
    assert CT.compare(changed(unscaled, plane=None)).unknown == ("plane", "pixel_mm")
    assert not InstanceSource().compare(CT)


def test_compare_ignores_the_units_of_scans_that_are_normalized():
    trained = InstanceSource(normalization="percentile(1, 99)", lowest=(0.0, 0.0), highest=(900.0, 3000.0))
    for low, high in ((0.0, 60.0), (-32768.0, 32767.0), (100.0, 100000.0)):
        assert not trained.compare(changed(trained, lowest=[low], highest=[high]))
    assert trained.compare(changed(trained, normalization="percentile(0.5, 99.5)"))


def test_compare_of_a_window_with_a_normalization_lists_only_what_is_not_stated():
    trained = InstanceSource(plane="axial", window=(-1000.0, 400.0), modality=("CT",))
    difference = trained.compare(InstanceSource(plane="axial", normalization="z-score"))
    assert "trained on window -1000 to 400, got normalization z-score" in difference.message()
    assert difference.unknown == ("modality",)


def test_merge_keeps_all_resolutions_and_the_ranges_of_values():
    other = changed(CT, lowest=[-3024], highest=[1200], spacing=[5.0])
    merged = InstanceSource.merge([CT, other, changed(CT, modality=["PT"], spacing=[0.6])])
    assert merged.lowest == (-3024.0, -1000.0)
    assert merged.highest == (1200.0, 3071.0)
    assert merged.spacing == (0.6, 5.0)
    assert merged.modality == ("CT", "PT")
    assert InstanceSource.merge([TRAINED, changed(TRAINED, mpp=[1.0])]).mpp == (0.5, 1.0)


def test_merge_takes_what_one_of_two_states_and_refuses_two_planes():
    assert InstanceSource.merge([InstanceSource(), TRAINED]) == TRAINED
    with pytest.raises(ValueError, match="`sources` must have one plane, got 'axial' and 'coronal'"):
        InstanceSource.merge([CT, changed(CT, plane="coronal")])
    with pytest.raises(ValueError, match="`sources` must not be empty, got none"):
        InstanceSource.merge([])


@pytest.mark.parametrize("source", [TRAINED, CT, InstanceSource()])
def test_values_of_a_source_give_the_source_again(source):
    assert InstanceSource.from_values(source.to_values()) == source


def test_from_bag_reads_what_a_file_states(tmp_path):
    attributes = {"encoder": "uni_v1", "mpp": 0.5, "input_size": 224.0, "encoder_fingerprint": "ab"}
    write_bag(tmp_path / "a.h5", {"features": np.zeros((2, 4), np.float16), "coords": np.zeros((2, 2))}, attributes)
    assert InstanceSource.from_bag(tmp_path / "a.h5") == InstanceSource(
        encoder="uni_v1", encoder_fingerprint="ab", width=4, dtype="float16", mpp=(0.5,), tile_size=(224.0,)
    )


def test_from_bag_reads_slices(tmp_path):
    attributes = {"plane": "axial", "window": np.array([-1000, 400]), "modality": "CT", "lowest": -1024.0}
    write_bag(tmp_path / "a.h5", {"features": np.zeros((2, 4))}, attributes)
    source = InstanceSource.from_bag(tmp_path / "a.h5")
    assert source == InstanceSource(
        width=4, dtype="float64", plane="axial", window=(-1000.0, 400.0), modality=("CT",), lowest=(-1024.0,)
    )


def test_merge_names_all_encoders_and_accepts_each_of_them():
    gigapath = changed(TRAINED, encoder="gigapath")
    mixed = InstanceSource.merge([TRAINED, gigapath, TRAINED])
    assert mixed.encoder == "gigapath or uni_v1"
    assert not mixed.compare(TRAINED)
    assert not mixed.compare(gigapath)
    message = "trained on encoder gigapath or uni_v1, got encoder ctranspath"
    assert mixed.compare(changed(TRAINED, encoder="ctranspath")).message() == message


@pytest.mark.parametrize(
    ("folder", "encoder", "magnification"),
    [
        ("features_gigapath", "gigapath", ()),
        ("20x_512px_0px_overlap/features_uni_v1", "uni_v1", (20.0,)),
        ("features_train", None, ()),
        ("gigapath", None, ()),
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".npy", ".h5", ".zarr"])
def test_instance_source_reads_encoder_and_magnification_from_the_folders_of_trident(
    tmp_path, folder, encoder, magnification, suffix
):
    path = tmp_path / folder / f"a{suffix}"
    path.parent.mkdir(parents=True)
    if suffix == ".pt":
        torch.save(torch.ones(3, 4), path)
    elif suffix == ".npy":
        np.save(path, np.ones((3, 4), np.float32))
    elif suffix == ".h5":
        write_bag(path, {"features": np.ones((3, 4), np.float32)})
    else:
        pytest.importorskip("zarr").save_array(str(path), np.ones((3, 4), np.float32))
    source = InstanceSource.from_bag(path)
    assert (source.encoder, source.magnification) == (encoder, magnification)


def test_instance_source_prefers_what_the_file_states(tmp_path):
    path = tmp_path / "5x_512px_0px_overlap" / "features_gigapath" / "a.h5"
    write_bag(path, {"features": np.ones((3, 4), np.float32)}, {"encoder": "uni_v1", "mpp": 0.5})
    source = InstanceSource.from_bag(path)
    assert (source.encoder, source.mpp, source.magnification) == ("uni_v1", (0.5,), ())


@pytest.mark.parametrize(
    ("spacing", "agrees"), [((0.6, 0.6), True), ((0.4, 0.4), False), ((12, 12), False), ((5, 30), True)]
)
def test_slices_agree_if_some_are_about_as_far_apart_as_in_training(spacing, agrees):
    difference = InstanceSource(spacing=(1.0, 5.0)).compare(InstanceSource(spacing=spacing))
    assert bool(difference) is not agrees
    if spacing == (12, 12):
        assert difference.message() == "trained on slices 1 to 5 mm apart, got slices 12 mm apart"


@pytest.mark.parametrize(("name", "value"), [("window", "hann"), ("lowest", "x"), ("spacing", "none")])
def test_instance_source_ignores_attributes_of_another_meaning(tmp_path, name, value):
    write_bag(tmp_path / "a.h5", {"features": np.ones((3, 4), np.float32)}, {"encoder": "uni_v1", name: value})
    source = InstanceSource.from_bag(tmp_path / "a.h5")
    assert (source.encoder, getattr(source, name)) == ("uni_v1", ())


def test_compare_names_another_tissue_detection():
    trained, other = (InstanceSource(preprocessing=f"tissue detection {k}") for k in (12, 34))
    expected = "trained on tissue detection 12, got tissue detection 34: give --tissue and --min_tissue of the training"
    assert trained.compare(other).message() == expected
    assert not trained.compare(trained)
