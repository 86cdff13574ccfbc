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
    ("value", "expected"), [(b"uni", "uni"), ('"titan" ', "titan"), ("None", None), ("", None), (None, None), (3, "3")]
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
