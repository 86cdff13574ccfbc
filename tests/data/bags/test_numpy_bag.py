"""Tests of the readers of bags in .npy, .npz and .safetensors."""

import time

import numpy as np
import pytest
import torch

from monai_mil_ext.data import BagFileError, inspect_bag, read_bag
from tests.data import bag_files as make
from tests.data.bag_files import BARE, FEATURES, GRID, MICRONS, PIXELS, ROWS, N, Trap, check_layout

NUMPY = {
    "array.npy": (make.npy, "npy", BARE, None),
    "columns.npy": (lambda p: make.npy(p, np.asfortranarray(FEATURES)), "npy", BARE, None),
    "big_endian.npy": (lambda p: make.npy(p, FEATURES.astype(">f4")), "npy", BARE, None),
    "arrays.npz": (make.npz, "npz", BARE, GRID),
    "packed.npz": (lambda p: make.npz(p, packed=True), "npz", BARE, GRID),
    "attributes.npz": (
        lambda p: make.npz(p, arr=FEATURES, coords=GRID, unit=np.array("um"), tile_size=np.array(256)),
        "npz",
        MICRONS,
        GRID,
    ),
}
SAFETENSORS = {
    "tensors.safetensors": (make.safetensors, "safetensors", BARE, GRID),
    "attributes.safetensors": (
        lambda p: make.safetensors(p, metadata={"unit": "px", "tile_size": "512"}),
        "safetensors",
        PIXELS,
        GRID,
    ),
    "bf16.safetensors": (
        lambda p: make.safetensors(p, {"feats": torch.from_numpy(FEATURES).bfloat16()}),
        "safetensors",
        BARE,
        None,
    ),
}


@pytest.mark.filterwarnings("ignore:.* is read whole even for a few of its rows")
@pytest.mark.parametrize("rows", ROWS, ids=str)
@pytest.mark.parametrize("name", NUMPY)
def test_open_npy_and_open_npz_read_every_order_and_compression(name, rows, tmp_path):
    check_layout(tmp_path / name, NUMPY[name], rows)


@pytest.mark.parametrize("rows", ROWS, ids=str)
@pytest.mark.parametrize("name", SAFETENSORS)
def test_open_safetensors_reads_tensors_and_metadata(name, rows, tmp_path):
    check_layout(tmp_path / name, SAFETENSORS[name], rows)


def test_open_npz_verifies_the_checksum(tmp_path):
    path = make.npz(tmp_path / "a.npz", features=np.tile(FEATURES, (999, 1)))
    raw, at = path.read_bytes(), 50_000
    path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
    with pytest.raises(BagFileError, match=r"must match its checksum, got other bytes in 'a\.npz'"):
        read_bag(path)


@pytest.mark.parametrize("form", [np.asfortranarray, lambda x: x.astype(">f2"), np.ascontiguousarray])
def test_open_npz_verifies_the_checksum_in_every_order(tmp_path, form):
    features = form(np.tile(FEATURES, (999, 1)))
    path = make.npz(tmp_path / "a.npz", features=features)
    assert np.array_equal(read_bag(path)["features"], features)
    raw = bytearray(path.read_bytes())
    raw[50_000] ^= 1
    path.write_bytes(raw)
    with pytest.raises(BagFileError, match=r"must match its checksum, got other bytes in 'a\.npz'"):
        read_bag(path)


@pytest.mark.parametrize("form", [np.asfortranarray, np.ascontiguousarray])
def test_open_npz_refuses_a_member_shorter_than_its_header_says(tmp_path, form):
    raw = make.npy(tmp_path / "a.npy", form(FEATURES)).read_bytes()
    path = make.zipped(tmp_path / "a.npz", {"features.npy": raw[:-8], "coords.npy": raw})
    for rows in (None, [0], [N - 1]):
        with pytest.raises(BagFileError, match=r"must hold the .* values of its header, got \d+ bytes in 'a\.npz'"):
            read_bag(path, rows=rows)


def test_open_npz_has_a_limit_of_members(tmp_path):
    value = make.npy(tmp_path / "a.npy", np.ones(1)).read_bytes()
    path = make.zipped(tmp_path / "a.npz", {f"{i}.npy": value for i in range(20_000)})
    start = time.perf_counter()
    with pytest.raises(BagFileError, match=r"must hold at most 1000 arrays, got 20000 or more in 'a\.npz'"):
        inspect_bag(path)
    assert time.perf_counter() - start < 5


def test_open_safetensors_passes_over_dtypes_that_numpy_lacks(tmp_path):
    other = {"small": torch.ones(N, 3).to(torch.float8_e4m3fn)}
    path = make.safetensors(
        tmp_path / "a.safetensors", {"x": torch.from_numpy(FEATURES), "coords": torch.from_numpy(GRID)}
    )
    assert read_bag(path)["features"].tolist() == FEATURES.tolist()
    path = make.safetensors(tmp_path / "a.safetensors", {"features": torch.from_numpy(FEATURES), **other})
    assert read_bag(path)["features"].tolist() == FEATURES.tolist()
    path = make.safetensors(tmp_path / "a.safetensors", {"features": other["small"], "x": torch.from_numpy(FEATURES)})
    with pytest.raises(BagFileError, match=r"features of real numbers, got F8_E4M3 in 'a\.safetensors'"):
        read_bag(path)


def test_open_npz_ignores_arrays_of_objects(tmp_path):
    np.savez(tmp_path / "a.npz", features=FEATURES, more=np.array([Trap(tmp_path / "sprung")], object))
    assert inspect_bag(tmp_path / "a.npz").keys == ()
    assert len(read_bag(tmp_path / "a.npz")["features"]) == N
    assert not (tmp_path / "sprung").exists()
