"""Laws of all transforms in both forms. A new transform adds one line to ``CASES``."""

import copy
import inspect
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from matplotlib.image import imsave
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform, Transform
from torch import nn

from monai_mil_ext import transforms
from monai_mil_ext.data import TileGrid, write_bag
from tests.make_slide import stained, write_slide
from tests.scans import voxels, write_nifti


class Case(NamedTuple):
    """Options of a transform, its item under ``x``, and the call of its array form on that item."""

    options: dict
    item: Any  # folder, kind of tensor -> item
    call: Any = lambda transform, item: transform(item["x"])
    keys: tuple[str, ...] = ()  # arguments of the dictionary form alone that name other items


def scan_file(folder, kind):
    return {"x": str(write_nifti(folder / "s.nii", voxels((5, 4, 3)), np.eye(4)))}


def mask_file(folder, kind):
    return {**scan_file(folder, kind), "image": str(folder)}


def bag_file(folder, kind):
    write_bag(folder / "b.h5", {"features": torch.arange(12.0).view(6, 2)})
    return {"x": str(folder / "b.h5"), "start": 1, "stop": 4}


def slide_files(folder, kind):
    paths = [folder / f"{i}.h5" for i in range(2)]
    for i, path in enumerate(paths):
        write_bag(path, {"features": torch.full((2 + i, 2), float(i))})
    return {"x": [str(path) for path in paths]}


def cell_folder(folder, kind):
    (folder / "cells").mkdir(exist_ok=True)
    for name, gray in (("b.png", 0.8), ("a.png", 0.2)):
        imsave(folder / "cells" / name, np.full((12, 10, 3), gray))
    return {"x": str(folder / "cells")}


def tile_scores(folder, kind):
    item = {"x": torch.rand(3), "coords": torch.arange(6).view(3, 2) * 32, "tile_size": 64.0}
    item["spatial_shape"] = [400, 300]
    return {key: kind(torch.as_tensor(value)) for key, value in item.items()}


def slide_file(folder, kind):
    return {"x": str(write_slide(folder / "s.tif", stained((300, 400), (50, 60, 350, 280)), tile=64))}


def scan(folder, kind):
    return {"x": MetaTensor(torch.rand(1, 5, 4, 3, generator=torch.Generator().manual_seed(0)))}


def images(folder, kind):
    return {"x": kind(torch.arange(48.0).view(3, 1, 4, 4) - 40)}


def scores(folder, kind):
    item = {"x": torch.rand(3), "slice_index": torch.arange(3), "affine": torch.eye(4), "spatial_shape": [5, 4, 3]}
    return {key: kind(torch.as_tensor(value)) for key, value in item.items()}


def token_scores(folder, kind):
    item = {"x": torch.rand(4), "grid_shape": [2, 1, 2], "affine": torch.eye(4), "spatial_shape": [5, 4, 3]}
    return {key: kind(torch.as_tensor(value)) for key, value in item.items()}


CASES = {
    "BagProbabilities": Case({}, lambda folder, kind: {"x": kind(torch.tensor([0.5, -2.0, 1.0]))}),
    "CTWindows": Case({"windows": ["brain", (0, 100)]}, images),
    "CheckSliceSpacing": Case({}, lambda folder, kind: {"x": kind(torch.tensor([0.0, 2.5, 5.0]))}),
    "EncodeInstances": Case({"encoder": nn.Flatten()}, images),
    "LoadBag": Case({}, bag_file, lambda t, item: t(item["x"], item["start"], item["stop"])["features"]),
    "LoadBagLabel": Case({"num_classes": 3}, lambda folder, kind: {"x": kind(torch.tensor(2))}),
    "LoadCellBag": Case({"size": 8}, cell_folder),
    "LoadPatientBag": Case({}, slide_files, lambda t, item: t(item["x"])["features"]),
    "LoadScan": Case({}, scan_file),
    "LoadMask": Case({}, mask_file, lambda t, item: t(item["x"], item["image"]), ("image_key",)),
    "MaskToInstanceLabel": Case({}, images),
    "RandFeatureJitter": Case({}, lambda folder, kind: {"x": kind(torch.arange(12.0).view(4, 3))}),
    "RandLoadBag": Case(
        {"num_instances": 2}, bag_file, lambda t, item: t(item["x"], item["start"], item["stop"])["features"]
    ),
    "RandSampleInstances": Case({"num_instances": 2}, images),
    "RandTokenDrop": Case({"num_drop": 1}, images),
    "ScaleBodyIntensity": Case({}, images),
    "SliceBag": Case({}, scan, lambda t, item: t(item["x"]).bag),
    "SliceScoresToVolume": Case({}, scores, lambda t, item: t(*item.values()), ("names",)),
    "TileBag": Case({"grid": TileGrid(64)}, slide_file, lambda t, item: t(item["x"]).bag),
    "TileScoresToHeatmap": Case(
        {"downsample": 32, "fill": 0.0}, tile_scores, lambda t, item: t(*item.values()), ("names", "skip_unplaced")
    ),
    "TokenScoresToVolume": Case({}, token_scores, lambda t, item: t(*item.values())),
    "VolumeTokens": Case({"encoder": nn.Conv3d(1, 2, 2, stride=2)}, scan, lambda t, item: t(item["x"]).bag),
}
KINDS = {"torch": torch.as_tensor, "meta": MetaTensor}


def same(a: Any, b: Any) -> bool:
    """Return whether two values are equal in type, value and, for MetaTensors, in affine and history."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, MetaTensor):
        history = a.applied_operations == b.applied_operations and a.meta.keys() == b.meta.keys()
        if not (isinstance(b, MetaTensor) and history and torch.equal(a.affine, b.affine)):
            return False
    if isinstance(a, torch.Tensor):
        return type(a) is type(b) and a.dtype == b.dtype and torch.equal(a, b)
    return type(a) is type(b) and a == b


def seeded(transform):
    """Seed a random transform; return any other transform unchanged."""
    return transform.set_random_state(0) if hasattr(transform, "set_random_state") else transform


def forms(name: str) -> tuple[type, type]:
    return getattr(transforms, name), getattr(transforms, f"{name}d")


def test_every_public_array_transform_has_a_case():
    public = [getattr(transforms, name) for name in transforms.__all__]
    classes = [value for value in public if isinstance(value, type)]  # without functions, such as scan_preprocessing
    arrays = {c.__name__ for c in classes if issubclass(c, Transform) and not issubclass(c, MapTransform)}
    assert arrays == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_transform_law_dictionary_form_has_the_arguments_of_the_array_form(name):
    case, (array, dictionary) = CASES[name], forms(name)
    assert getattr(transforms, f"{name}D") is getattr(transforms, f"{name}Dict") is dictionary
    expected = ["keys", *case.keys, *inspect.signature(array).parameters, "allow_missing_keys"]
    assert list(inspect.signature(dictionary).parameters) == expected
    assert array.backend
    assert array.backend == dictionary.backend


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("name", CASES)
def test_transform_law_both_forms_agree_and_do_not_modify_input(name, kind, tmp_path):
    case, (array, dictionary) = CASES[name], forms(name)
    item = case.item(tmp_path, kind)
    before = copy.deepcopy(item)
    array_form, dictionary_form = array(**case.options), dictionary("x", **case.options)
    expected = case.call(seeded(array_form), item)
    out = seeded(dictionary_form)(item)
    assert same(item, before)
    assert out is not item
    assert same(out["x"], expected)
    assert same(out, seeded(dictionary_form)(item))
    assert same(case.call(seeded(copy.deepcopy(array_form)), item), expected)
    composed = Compose([dictionary_form])
    seeded(dictionary_form)  # again, after Compose has set seeds
    assert same(composed(item)["x"], expected)


@pytest.mark.parametrize("name", CASES)
def test_transform_law_tensor_and_metatensor_agree(name, tmp_path):
    case, (_, dictionary) = CASES[name], forms(name)
    results = []
    for kind in KINDS.values():
        torch.manual_seed(0)
        results.append(seeded(dictionary("x", **case.options))(case.item(tmp_path, kind))["x"])
    assert same(*results)


@pytest.mark.parametrize("name", CASES)
def test_transform_law_missing_key_is_skipped_only_if_allowed(name, tmp_path):
    case, (_, dictionary) = CASES[name], forms(name)
    item = case.item(tmp_path, torch.as_tensor)
    out = seeded(dictionary(["x", "absent"], **case.options, allow_missing_keys=True))(item)
    assert same(out, seeded(dictionary("x", **case.options))(item))
    with pytest.raises((KeyError, ValueError), match="absent"):
        dictionary(["x", "absent"], **case.options)(item)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_transform_laws_hold_for_joined_sources_which_have_no_array_form(kind):
    item = {"a": kind(torch.rand(2, 3)), "b": kind(torch.rand(4, 2))}
    before, join = copy.deepcopy(item), transforms.JoinSourcesd(["a", "b"])
    out = join(item)
    assert transforms.JoinSourcesD is transforms.JoinSourcesDict is transforms.JoinSourcesd
    assert same(item, before)
    assert same(out, Compose([join])(item))
    assert all(same(out[key], item[key]) for key in item)
    assert same(out["image"], join({key: value.as_subclass(torch.Tensor) for key, value in item.items()})["image"])
    alone = transforms.JoinSourcesd(["absent", "a"], allow_missing_keys=True)(item)
    assert alone["image"][:, -1].tolist() == [1.0, 1.0]
    with pytest.raises((KeyError, ValueError), match="absent"):
        transforms.JoinSourcesd(["absent", "a"])(item)
