"""Tests of bag files: round trips, reading of rows, and errors that name the file."""

import multiprocessing
import time

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_mil_ext.data import BagFileError, BagInfo, inspect_bag, open_bag, read_bag, write_bag
from monai_mil_ext.data.bags.bag_file import read_attributes
from tests.data import bag_files as make


@pytest.fixture
def bag(tmp_path):
    features = torch.arange(600.0).view(200, 3)
    arrays = {"features": features, "position": torch.arange(200) * 2.5, "instance_label": np.arange(200) % 2}
    write_bag(tmp_path / "folder" / "bag.h5", arrays, {"affine": torch.eye(4), "case_id": "a", "n": 3})
    return tmp_path / "folder" / "bag.h5"


@given(rows=st.tuples(st.integers(0, 200), st.integers(0, 200)).map(sorted))
def test_read_bag_rows_equal_those_of_the_whole_bag(bag_of_200, rows):
    part = read_bag(bag_of_200, ["features", "position"], *rows)
    whole = read_bag(bag_of_200, ["features", "position"])
    assert torch.equal(part["features"], whole["features"][slice(*rows)])
    assert torch.equal(part["position"], whole["position"][slice(*rows)])


@pytest.fixture(scope="module")
def bag_of_200(tmp_path_factory):
    path = tmp_path_factory.mktemp("bags") / "bag.h5"
    write_bag(path, {"features": torch.randn(200, 3), "position": torch.randn(200)})
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_write_bag_keeps_values_dtypes_and_attributes(tmp_path, dtype):
    features = torch.randn(5, 2).to(dtype)
    affine = torch.randn(4, 4, dtype=torch.float64)
    write_bag(tmp_path / "b.h5", {"features": features, "i": torch.arange(5)}, {"affine": affine, "case_id": "a"})
    got = read_bag(tmp_path / "b.h5", ["features", "i", "affine"])
    assert torch.equal(got["features"], features)
    assert got["features"].dtype == dtype
    assert torch.equal(got["i"], torch.arange(5))
    assert torch.equal(got["affine"], affine)
    assert read_attributes(tmp_path / "b.h5")["case_id"] == "a"


def test_write_bag_layout_is_that_of_other_tools(bag):
    with h5py.File(bag) as file:
        assert file["features"].shape == (200, 3)
        assert file["features"].chunks is None  # one piece: all of it reads like raw bytes, any row alone
        assert set(file) == {"features", "position", "instance_label"}


def test_write_bag_array_attributes(bag):
    write_bag(bag, {"features": np.ones((2, 3)), "coords": np.ones((2, 2))}, None, {"coords": {"name": "a", "n": 2}})
    with h5py.File(bag) as file:
        assert dict(file["coords"].attrs) == {"name": "a", "n": 2}
        assert not file["features"].attrs
        assert not file.attrs


def test_write_bag_is_atomic(bag):
    with pytest.raises(TypeError, match="no native HDF5 equivalent"):
        write_bag(bag, {"features": np.array([[object()]])})
    assert len(read_bag(bag)["features"]) == 200
    assert [p.name for p in bag.parent.iterdir()] == ["bag.h5"]


def test_write_bag_without_instances(tmp_path):
    write_bag(tmp_path / "b.h5", {"features": torch.zeros(0, 3)})
    assert read_bag(tmp_path / "b.h5")["features"].shape == (0, 3)


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"position": [1.0]}, r"`arrays` must have features \(N, F\), got \['position'\]"),
        ({"features": [1.0]}, r"`arrays` must have features \(N, F\), got \(1,\)"),
        ({"features": np.ones((2, 1), complex)}, r"`arrays` must have features of real numbers, got complex128"),
        ({"features": np.ones((2, 1)), "p": [1.0]}, r"same number of instances, got \{'features': 2, 'p': 1\}"),
        ({"features": np.ones((2, 1)), "p": 1.0}, r"same number of instances, got \{'features': 2, 'p': None\}"),
    ],
)
def test_write_bag_refuses_invalid_arrays(tmp_path, arrays, match):
    with pytest.raises(ValueError, match=match):
        write_bag(tmp_path / "b.h5", arrays)


def test_read_bag_names_invalid_requests(bag):
    with pytest.raises(ValueError, match=r"in the bag file 'bag.h5', got 'coords' where there are \['affine', 'case"):
        read_bag(bag, ["features", "coords"])
    assert set(read_bag(bag, ["features", "coords"], allow_missing_keys=True)) == {"features"}
    for rows in ((-1, 3), (4, 3), (0, 201)):
        with pytest.raises(ValueError, match=f"must be rows 0 to 200 of 'bag.h5', got {rows[0]} to {rows[1]}"):
            read_bag(bag, ["features"], *rows)
    with pytest.raises(FileNotFoundError, match=r"a bag file that exists, got 'none.h5'"):
        read_bag(bag.with_name("none.h5"))


@pytest.mark.parametrize(
    ("left", "match"),
    [
        (0, r"^`path` must be a bag file of a known format, got one that begins with b'' in 'bag.h5'\.$"),
        (100, r"^`path` must be an undamaged bag file, got 'bag.h5'\.$"),
        (-1, r"^`path` must be an undamaged bag file, got 'bag.h5'\.$"),
    ],
)
def test_read_bag_names_a_truncated_file_without_its_folder(bag, left, match):
    bag.write_bytes(bag.read_bytes()[:left])
    for read in (read_bag, read_attributes, inspect_bag):
        with pytest.raises(BagFileError, match=match):
            read(bag)


@given(rows=st.lists(st.integers(0, 199), max_size=20))
def test_read_bag_returns_rows_in_the_requested_order(bag_of_200, rows):
    part, whole = (read_bag(bag_of_200, ["features", "position"], rows=r) for r in (rows, None))
    assert torch.equal(part["features"], whole["features"][rows])
    assert torch.equal(part["position"], whole["position"][rows])


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([0, 200], r"`rows` must be from 0 to 199 in 'bag.h5', got 0 to 200"),
        ([-1], r"`rows` must be from 0 to 199 in 'bag.h5', got -1 to -1"),
        ([0.5], r"`rows` must be a list of integers, got float64 of shape \(1,\)"),
        ([True] * 200, r"`rows` must be a list of integers, got bool of shape \(200,\)"),
        ([[0]], r"`rows` must be a list of integers, got int64 of shape \(1, 1\)"),
    ],
)
def test_read_bag_refuses_invalid_rows(bag, rows, match):
    with pytest.raises(ValueError, match=match):
        read_bag(bag, rows=rows)
    with pytest.raises(ValueError, match="`rows` must be given without `start` and `stop`, got 0 and None too"):
        read_bag(bag, rows=[0], start=0)


def test_open_bag_keeps_errors_of_its_body(bag):
    with pytest.raises(KeyError, match="mine"), open_bag(bag):
        raise KeyError("mine")


def test_open_bag_names_a_file_that_is_no_bag(tmp_path):
    (tmp_path / "a.txt").write_text("features")
    with pytest.raises(BagFileError, match=r"of a known format, got one that begins with b'features' in 'a\.txt'"):
        read_bag(tmp_path / "a.txt")
    make.zipped(tmp_path / "a.zip", {"a.txt": b"x"})
    with pytest.raises(BagFileError, match=r"must be a \.npz or \.pt archive, got one with \['a\.txt'\] in 'a\.zip'"):
        read_bag(tmp_path / "a.zip")
    (tmp_path / "folder").mkdir()
    with pytest.raises(BagFileError, match="must be a zarr store where it is a folder, got no metadata in 'folder'"):
        read_bag(tmp_path / "folder")


def test_inspect_bag_does_not_read_features(tmp_path):
    attributes = {"encoder": "resnet50", "unit": "um", "tile_size": 128, "case_id": "a"}
    write_bag(tmp_path / "b.h5", {"features": torch.zeros(5, 2).half(), "coords": np.zeros((5, 2))}, attributes)
    info = inspect_bag(tmp_path / "b.h5")
    assert info == BagInfo(
        5, 2, torch.float16, "hdf5", "tile", "resnet50", "um", 128.0, False, None, None, None, ("coords",)
    )
    got = read_bag(tmp_path / "b.h5", ["unit", "tile_size", "case_id", "format"])
    assert got == {"unit": "um", "tile_size": torch.tensor(128.0), "case_id": "a", "format": "hdf5"}
    with open_bag(tmp_path / "b.h5") as bag:
        assert len(bag) == 5
        assert bag.attributes == attributes


def rewrite(path, value, until):
    while time.time() < until:
        write_bag(path, {"features": np.full((2000, 50), value, np.float32)})


def test_write_bag_never_shows_half_a_file(tmp_path):
    """Two processes overwrite one file repeatedly; a reader gets the complete file of one of them."""
    path = tmp_path / "a.h5"
    write_bag(path, {"features": np.zeros((2000, 50), np.float32)})
    until, processes = time.time() + 1.5, multiprocessing.get_context("fork")
    writers = [processes.Process(target=rewrite, args=(path, value, until)) for value in (1, 2)]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        features = read_bag(path)["features"]
        assert features.shape == (2000, 50)
        seen |= set(features.unique().tolist())
        assert len(features.unique()) == 1
    assert all(writer.exitcode == 0 for writer in writers)
    assert seen > {1} or seen > {2}
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]
