"""Tests of the bytes that reading some rows of a large bag takes."""

import h5py
import numpy as np
import pytest
import torch

from monai_mil_ext.data import BagFileError, inspect_bag, read_bag, write_bag
from monai_mil_ext.data.bags.bag_rows import RawRows
from monai_mil_ext.transforms import RandLoadBagd
from tests.data import bag_files as make

ROWS, WIDTH, WANTED = 40_000, 64, 400
SAMPLE = np.random.default_rng(0).permutation(ROWS)[:WANTED]
NEEDED = WANTED * WIDTH * 2  # 51 kB of 5.1 MB


def bytes_read():
    """Return the bytes that this process has read, from the page cache or the disk."""
    with open("/proc/self/io") as file:
        return int(file.readline().split()[1])


def store(chunks, **options):
    def write(path, features):
        with h5py.File(path, "w") as file:
            file.create_dataset("features", data=features, chunks=chunks, **options)

    return write


# what may be read beside the rows themselves: headers, the index of the chunks, the rest of a packed chunk
CASES = {
    "own.h5": (lambda path, x: write_bag(path, {"features": x}), 1.2),
    "clam.h5": (store((32, WIDTH), maxshape=(None, WIDTH)), 3),
    "parts.h5": (store((32, WIDTH // 2)), 70),
    "packed.h5": (store((8, WIDTH), compression="lzf"), 16),
    "array.npy": (np.save, 1.4),
    "arrays.npz": (lambda path, x: np.savez(path, features=x), 1.6),
    "tensor.pt": (lambda path, x: torch.save(torch.from_numpy(x), path), 1.6),
    "dictionary.pt": (lambda path, x: torch.save({"features": torch.from_numpy(x)}, path), 1.6),
    "a.safetensors": (lambda path, x: make.safetensors(path, {"features": torch.from_numpy(x)}), 1.2),
    "chunks.zarr": (lambda path, x: make.zarr_array(path, x, 100), 12),
}


@pytest.fixture(scope="module")
def features():
    return np.random.default_rng(1).standard_normal((ROWS, WIDTH)).astype(np.float16)


@pytest.mark.parametrize("name", CASES)
def test_read_bag_reads_few_bytes_beyond_the_rows(tmp_path, features, name):
    write, factor = CASES[name]
    write(tmp_path / name, features)
    read_bag(tmp_path / name, rows=[0])  # imports
    before = bytes_read()
    info = inspect_bag(tmp_path / name)
    inspected = bytes_read() - before
    wanted = SAMPLE[:40] if name.endswith(".zarr") else SAMPLE  # each in another chunk of 100 rows
    sample = read_bag(tmp_path / name, rows=wanted)["features"]
    used = bytes_read() - before - inspected
    assert info[:2] == (ROWS, WIDTH)
    assert np.array_equal(sample.numpy(), features[wanted])
    assert inspected < 40_000
    assert used < factor * NEEDED
    assert factor * NEEDED < features.nbytes


def test_hdf5_rows_of_one_row_chunks_read_few_bytes(tmp_path):
    """TRIDENT's chunk index has about 50 bytes per row, so that the rows need a realistic width."""
    features = np.random.default_rng(1).standard_normal((2000, 1024)).astype(np.float16)
    make.trident(tmp_path / "a.h5", features, np.zeros((2000, 2)))
    before = bytes_read()
    sample = read_bag(tmp_path / "a.h5", rows=range(0, 2000, 100))["features"]
    used = bytes_read() - before
    assert np.array_equal(sample.numpy(), features[::100])
    assert used < 20 * 2048 + 2000 * 200 < features.nbytes / 8


def test_rand_load_bagd_reads_only_the_sample(tmp_path, features):
    write_bag(tmp_path / "a.h5", {"features": features, "coords": np.zeros((ROWS, 2), np.int32)})
    load = RandLoadBagd(["image", "coords"], WANTED)
    load({"image": tmp_path / "a.h5"})
    before = bytes_read()
    assert load({"image": tmp_path / "a.h5"})["image"].shape == (WANTED, WIDTH)
    assert bytes_read() - before < 1.5 * NEEDED


@pytest.mark.parametrize("name", ["packed.npz", "columns.npy"])
def test_array_rows_warn_of_reading_everything(tmp_path, name):
    arrays = {
        "packed.npz": lambda p: make.npz(p, packed=True),
        "columns.npy": lambda p: make.npy(p, make.FEATURES.T.copy().T),
    }
    path = arrays[name](tmp_path / name)
    with pytest.warns(UserWarning, match="is read whole even for a few of its rows"):
        read_bag(path, rows=[1])


@pytest.mark.filterwarnings("error")
def test_array_rows_do_not_warn_if_all_rows_are_read(tmp_path):
    read_bag(make.npz(tmp_path / "a.npz", packed=True))
    read_bag(make.npz(tmp_path / "b.npz"), rows=[1])


def test_raw_rows_in_pieces(tmp_path):
    values = np.arange(24, dtype=np.int16).reshape(12, 2)
    order = [2, 0, 1]  # three pieces of five, five and two rows, shuffled in the file
    pieces = [values[:5], values[5:10], values[10:]]
    (tmp_path / "a").write_bytes(b"x" + b"".join(pieces[i].tobytes() for i in order))
    with (tmp_path / "a").open("rb") as file:
        rows = RawRows(file.fileno(), (12, 2), np.int16, [9, 29, 1], 5)
        for wanted in (np.arange(12), np.array([4, 5, 9, 10]), np.array([11]), np.arange(0)):
            assert rows.read(wanted).tolist() == values[wanted].tolist()
        with pytest.raises(BagFileError, match="a complete file, got a truncated one"):
            RawRows(file.fileno(), (12, 2), np.int16, [9, 29, 45], 5).read(np.arange(12))
        with pytest.raises(BagFileError, match=r"must hold the \(13, 2\) values of its header, got 49 bytes"):
            RawRows(file.fileno(), (13, 2), np.int16, [1])
