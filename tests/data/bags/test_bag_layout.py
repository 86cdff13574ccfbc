"""Tests of the layout that bag files of every format share."""

import numpy as np
import pytest
import torch

from monai_mil_ext.data import BagFileError, inspect_bag, read_bag
from monai_mil_ext.data.bags.bag_layout import feature_key, smallest_step, text
from tests.data import bag_files as make
from tests.data.bag_files import FEATURES, GRID, F, N


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({"feats": (5, 3), "other": (5, 2)}, "feats"),
        ({"embedding": (5, 3), "coords": (5, 2), "label": (5,)}, "embedding"),
        ({"embedding": (1, 5, 3)}, "embedding"),
        ({"coords": (5, 2)}, None),
    ],
)
def test_feature_key_is_a_known_name_or_the_only_table(shapes, expected):
    assert feature_key(shapes) == expected


def test_smallest_step_is_that_of_the_grid():
    assert smallest_step(GRID * 512) == 512
    assert smallest_step(GRID[:1]) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"uni", "uni"),
        ('"titan" ', "titan"),
        ("None", None),
        ("", None),
        (None, None),
        (3, "3"),
        (np.array([b"uni"]), "uni"),
        (np.array([]), None),
        (np.nan, None),
    ],
)
def test_text_reads_every_spelling_of_a_missing_value_as_none(value, expected):
    assert text(value) == expected


@pytest.mark.parametrize("shape", [(0, F), (0,)])
@pytest.mark.parametrize("coords", [GRID[:0], None])
def test_read_bag_of_a_slide_without_tissue_is_empty(tmp_path, shape, coords):
    datasets = {"features": np.zeros(shape, np.float32), **({} if coords is None else {"coords": coords})}
    for path in (
        make.hdf5(tmp_path / "a.h5", datasets),
        make.saved(tmp_path / "a.pt", torch.zeros(shape)),
        make.npy(tmp_path / "a.npy", np.zeros(shape)),
        make.safetensors(tmp_path / "a.safetensors", {"features": torch.zeros(shape)}),
    ):
        assert inspect_bag(path).num_instances == 0
        assert len(read_bag(path)["features"]) == 0


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"features": FEATURES, "feats": FEATURES}, r"one of the names .* got \['features', 'feats'\] in 'a"),
        ({"one": FEATURES, "two": FEATURES}, r"one of the names .* got \['one', 'two'\] in 'a"),
        ({"features": FEATURES, "coords": GRID[1:]}, r"a row of coords for every instance, got 11 for 12 in 'a"),
        ({"features": FEATURES[0]}, r"must hold features \(N, F\), got \(4,\) in 'a"),
        ({"features": np.ones((2, 2, 2))}, r"must hold features \(N, F\), got \(2, 2, 2\) in 'a"),
        ({"features": FEATURES, "coords": GRID[:, 0]}, r"must hold coords \(N, 2\), got \(12,\) in 'a"),
        ({"step": np.ones(3)}, r"must hold features, got \['step'\] in 'a"),
    ],
)
@pytest.mark.parametrize("suffix", ["h5", "npz", "pt", "safetensors"])
def test_bag_layout_refuses_other_arrays(tmp_path, suffix, arrays, match):
    tensors = {name: torch.from_numpy(np.array(values)) for name, values in arrays.items()}
    path = tmp_path / f"a.{suffix}"
    {
        "h5": lambda: make.hdf5(path, arrays),
        "npz": lambda: make.npz(path, **arrays),
        "pt": lambda: make.saved(path, tensors),
        "safetensors": lambda: make.safetensors(path, tensors),
    }[suffix]()
    with pytest.raises(BagFileError, match=match):
        read_bag(path)


def test_read_bag_drops_a_leading_axis_of_one(tmp_path):
    arrays = {"features": FEATURES[None], "coords": GRID[None]}
    for path in (
        make.hdf5(tmp_path / "a.h5", arrays),
        make.hdf5(tmp_path / "b.h5", arrays, chunks=(1, 3, 2)),
        make.npz(tmp_path / "a.npz", **arrays),
        make.npz(tmp_path / "b.npz", packed=True, **arrays),
        make.saved(tmp_path / "a.pt", arrays),
        make.saved(tmp_path / "b.pt", torch.from_numpy(FEATURES)[None]),
        make.zarr_group(tmp_path / "a.zarr", features=FEATURES[None], chunks=(1, 5, F)),
    ):
        assert inspect_bag(path)[:2] == (N, F)
        assert read_bag(path)["features"].tolist() == FEATURES.tolist()


def write_zarr(path, arrays, attributes):
    import zarr

    group = zarr.open_group(str(path), mode="w")
    for name, values in arrays.items():
        group.create_array(name, data=values)
    group.attrs.update(attributes)
    return path


WRITERS = {
    "a.h5": make.hdf5,
    "a.npz": lambda path, arrays, attributes: make.npz(path, **arrays, **attributes),
    "a.pt": lambda path, arrays, attributes: make.saved(path, {**arrays, **attributes}),
    "tensors.pt": lambda path, arrays, attributes: make.saved(
        path, {**{name: torch.from_numpy(values) for name, values in arrays.items()}, **attributes}
    ),
    "a.zarr": write_zarr,
    "a.safetensors": lambda path, arrays, attributes: make.safetensors(
        path,
        {name: torch.from_numpy(values) for name, values in arrays.items()},
        {name: str(value) for name, value in attributes.items()},
    ),
}


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr")
@pytest.mark.parametrize("name", WRITERS)
def test_complex_features_are_refused_in_every_format(tmp_path, name):
    arrays = {"features": FEATURES.astype(np.complex64), "weights": FEATURES.astype(np.float32)}
    path = WRITERS[name](tmp_path / name, arrays, {})
    for read in (inspect_bag, read_bag):
        with pytest.raises(BagFileError, match=rf"must hold features of real numbers, got (complex64|C64) in '{name}'"):
            read(path)
    arrays = {"features": FEATURES.astype(np.float32), "more": FEATURES.astype(np.complex64)}
    path = WRITERS[name](tmp_path / f"more_{name}", arrays, {})
    assert read_bag(path)["features"].tolist() == FEATURES.tolist()
    assert inspect_bag(path).keys == ()


def test_complex_features_of_a_file_with_one_array_are_refused(tmp_path):
    values = FEATURES.astype(np.complex64)
    paths = [make.npy(tmp_path / "a.npy", values), make.saved(tmp_path / "a.pt", torch.from_numpy(values))]
    for path in [*paths, make.saved(tmp_path / "old.pt", values, _use_new_zipfile_serialization=False)]:
        with pytest.raises(BagFileError, match="must hold features of real numbers, got complex64"):
            read_bag(path)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("key", ["tile_size", "mpp", "magnification"])
def test_a_size_that_is_not_positive_is_not_stated_in_any_format(tmp_path, name, key):
    arrays = {"features": FEATURES.astype(np.float32), "coords": GRID.astype(np.float32)}
    for value in (-5.0, np.nan, np.inf, 0.0):
        path = WRITERS[name](tmp_path / name, arrays, {key: value, "unit": "um"})
        info, bag = inspect_bag(path), read_bag(path, ["features", key, "unit"], allow_missing_keys=True)
        assert (getattr(info, key), bag.get(key)) == (None, None)
        assert info.unit == bag["unit"] == "um"
    path = WRITERS[name](tmp_path / name, arrays, {key: 0.5})
    assert getattr(inspect_bag(path), key) == read_bag(path, [key])[key] == 0.5


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "a.zarr"])
def test_a_file_of_many_arrays_is_refused(tmp_path, name):
    arrays = {"features": FEATURES.astype(np.float32), **{f"x{i}": np.ones(1) for i in range(1001)}}
    with pytest.raises(BagFileError, match=r"must hold at most 1000 arrays, got 1\d* or more"):
        inspect_bag(WRITERS[name](tmp_path / name, arrays, {}))
