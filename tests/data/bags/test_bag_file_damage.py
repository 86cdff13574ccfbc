"""Tests of damaged, malicious and half-written bag files: a documented error that names the file, or correct data."""

import multiprocessing
import os
import signal
import warnings

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monai_mil_ext.data import BagFileError, inspect_bag, read_bag, write_bag
from tests.data import bag_files as make
from tests.data.bag_files import FEATURES, GRID, N

HUGE = 10**12
DICTIONARY = {"features": torch.from_numpy(FEATURES), "coords": GRID}
FILES = {
    "own.h5": lambda p: write_bag(p, {"features": FEATURES, "coords": GRID}, {"unit": "px", "tile_size": 8}),
    "array.npy": make.npy,
    "arrays.npz": make.npz,
    "packed.npz": lambda p: make.npz(p, packed=True),
    "dictionary.pt": lambda p: make.saved(p, DICTIONARY),
    "old.pt": lambda p: make.saved(p, FEATURES, _use_new_zipfile_serialization=False),
    "tensors.safetensors": make.safetensors,
}
# they hold strings of any length, in which a wrong byte can keep the HDF5 library busy for ever
STRINGS = {"trident.h5": make.trident, "clam.h5": make.clam, "stamp.h5": make.stamp, "groups.h5": make.grouped}
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "set", "cut", "insert", "zero", "number"]), st.floats(0, 1), st.integers(0, 255)
    ),
    min_size=1,
    max_size=4,
)


def damaged(raw, edits):
    out = bytearray(raw)
    for kind, position, value in edits:
        i = int(position * len(out))
        if kind == "flip" and i < len(out):
            out[i] ^= 1 << value % 8
        elif kind == "set":
            out[i : i + 1] = bytes([value])[: len(out) - i]
        elif kind == "cut":
            del out[i:]
        elif kind == "insert":
            out[i:i] = bytes([value]) * (1 + value % 9)
        elif kind == "zero":
            out[i : i + 8] = bytes(len(out[i : i + 8]))
        elif kind == "number":
            out[i : i + 8] = HUGE.to_bytes(8, "little")
    return bytes(out)


def check(path, slide=None):
    """Check that reading ``path`` raises the documented error, or returns the rows of the whole bag."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            info = inspect_bag(path, slide, estimate=True)
            features = read_bag(path, slide=slide)["features"]
            assert features.shape == (info.num_instances, info.in_features)
            rows = list(range(0, len(features), 3))[::-1]
            part = read_bag(path, ["features", "coords"], allow_missing_keys=True, rows=rows, slide=slide)
            assert torch.equal(part["features"].nan_to_num(7), features[rows].nan_to_num(7))
        except ValueError as error:
            kind, message = type(error), str(error)
        else:
            return
    assert path.name in message
    assert kind is BagFileError or "`keys` must be in the bag file" in message


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("name", FILES)
@given(edits=EDITS)
def test_open_bag_refuses_or_reads_mutated_files(tmp_path, name, edits):
    path = tmp_path / name
    if not path.with_suffix(".good").exists():
        FILES[name](path)
        path.rename(path.with_suffix(".good"))
    path.write_bytes(damaged(path.with_suffix(".good").read_bytes(), edits))
    check(path)


def _fuzz(path, raw, seeds, done):
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for seed in seeds:
        done.value = seed
        signal.alarm(10)
        r = np.random.default_rng(seed)
        kinds = ["flip", "set", "cut", "insert", "zero", "number"]
        edits = [(r.choice(kinds), r.random(), int(r.integers(256))) for _ in range(r.integers(1, 4))]
        path.write_bytes(damaged(raw, edits))
        check(path, "slide_1" if path.name == "groups.h5" else None)
    done.value = -1


@pytest.mark.slow(buys="no damaged file crashes or hangs a reader")
@pytest.mark.parametrize("name", [*STRINGS, *FILES])
def test_open_bag_survives_many_mutations(tmp_path, name):
    """Run in a separate process, since the HDF5 library can loop forever in a damaged heap."""
    path = tmp_path / name
    {**STRINGS, **FILES}[name](path)
    raw, context, seed, stuck = path.read_bytes(), multiprocessing.get_context("fork"), 0, []
    while seed < 400:
        done = context.Value("q", seed)
        process = context.Process(target=_fuzz, args=(path, raw, range(seed, 400), done))
        process.start()
        process.join()
        if done.value == -1 and process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGALRM, f"seed {done.value} ended with {process.exitcode}"
        stuck.append(done.value)
        seed = done.value + 1
    assert len(stuck) <= (4 if name in STRINGS else 0)


def _claims(folder):
    """Write small files whose headers declare a trillion rows."""
    header = {"descr": "<f2", "fortran_order": False, "shape": (HUGE, 4)}
    for name in ("a.npy", "b.npy"):
        with (folder / name).open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {**header, "fortran_order": name == "b.npy"})
            file.write(bytes(64))
    make.zipped(folder / "a.npz", {"features.npy": (folder / "a.npy").read_bytes()})
    make.zipped(folder / "b.npz", {"features.npy": (folder / "a.npy").read_bytes()}, packed=True)
    entry = b'{"features":{"dtype":"F16","shape":[%d,4],"data_offsets":[0,64]}}' % HUGE
    (folder / "a.safetensors").write_bytes(len(entry).to_bytes(8, "little") + entry + bytes(64))
    torch.save(torch.zeros(1, 4).half().expand(HUGE, 4), folder / "a.pt")
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("features", (HUGE, 4), "f2", chunks=(64, 4))
    with h5py.File(folder / "b.h5", "w") as file:
        file.create_dataset("features", (HUGE, 4), "f2", chunks=(64, 4), compression="gzip")
    store = make.zarr_group(folder / "a.zarr") / "features" / "zarr.json"
    store.write_text(store.read_text().replace(f"{N},", f"{HUGE},", 1))


def test_check_header_size_refuses_endless_rows(tmp_path):
    _claims(tmp_path)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 9
    for path in files:
        for read in (inspect_bag, read_bag):
            with pytest.raises(BagFileError, match=rf"must hold .*got .* in '{path.name}'"):
                read(path)


def test_open_bag_refuses_a_pipe_and_a_link_to_itself_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.h5")
    (tmp_path / "loop.h5").symlink_to("loop.h5")
    for name, rule in {
        "pipe.h5": "a file or a folder, got a pipe or a device",
        "loop.h5": "an undamaged bag file",
    }.items():
        for read in (inspect_bag, read_bag):
            with pytest.raises(BagFileError, match=rf"`path` must be {rule}.* '{name}'\.$"):
                read(tmp_path / name)
