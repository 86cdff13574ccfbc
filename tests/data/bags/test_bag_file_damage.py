"""Damaged, malicious and half-written bag files: a documented error that names the file, or correct data."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
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


@pytest.mark.slow
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


class Trap:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_open_torch_runs_no_code_of_a_file(tmp_path):
    trap, path = Trap(tmp_path / "sprung"), tmp_path / "a.pt"
    hostile = {"features": DICTIONARY["features"], "more": trap}
    writers = [
        lambda: torch.save(hostile, path),
        lambda: torch.save(hostile, path, _use_new_zipfile_serialization=False),
        lambda: make.torch_archive(path, pickle.dumps(trap, 2)),
        lambda: path.write_bytes(pickle.dumps(trap, 2)),
        lambda: path.write_bytes(pickle.dumps(trap, 4)),
        lambda: path.write_bytes(pickle.dumps(trap, 0)),
        lambda: np.save(path.open("wb"), np.array([trap], object), allow_pickle=True),
        lambda: np.savez(path.open("wb"), features=np.array([trap], object)),
    ]
    for write in writers:
        write()
        for read in (inspect_bag, read_bag):
            with pytest.raises(
                BagFileError, match=r"nothing else is unpickled|known format|numbers|features.* 'a\.pt'"
            ):
                read(path)
    assert not (tmp_path / "sprung").exists()


def test_open_bag_ignores_arrays_of_objects(tmp_path):
    np.savez(tmp_path / "a.npz", features=FEATURES, more=np.array([Trap(tmp_path / "sprung")], object))
    assert inspect_bag(tmp_path / "a.npz").keys == ()
    assert len(read_bag(tmp_path / "a.npz")["features"]) == N
    assert not (tmp_path / "sprung").exists()


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


@pytest.mark.parametrize("options", [{"chunks": (4, 4)}, {"chunks": (4, 4), "compression": "gzip"}, {}])
def test_read_bag_refuses_rows_that_were_never_written(tmp_path, options):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("features", (N, 4), "f2", **options)
        if options:
            data[:4] = FEATURES[:4]
    with pytest.raises(BagFileError, match=r"completely written file, got one with missing rows in 'a\.h5'"):
        read_bag(tmp_path / "a.h5")


def test_open_hdf5_refuses_data_of_other_files(tmp_path):
    make.clam(tmp_path / "other.h5")
    FEATURES.tofile(tmp_path / "raw.bin")
    layout = h5py.VirtualLayout((N, 4), "f4")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "features", (N, 4))
    makers = [
        lambda file: file.__setitem__("features", h5py.ExternalLink("other.h5", "features")),
        lambda file: file.create_group("slide_1").__setitem__("feat", h5py.ExternalLink("other.h5", "features")),
        lambda file: file.update(
            {"far/off": h5py.ExternalLink("other.h5", "features"), "feats": h5py.SoftLink("far/off")}
        ),
        lambda file: file.create_virtual_dataset("features", layout),
        lambda file: file.create_dataset("features", (N, 4), "f2", external=[(str(tmp_path / "raw.bin"), 0, 96)]),
    ]
    for maker in makers:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            maker(file)
        with pytest.raises(BagFileError, match=r"`path` must hold its own data, got .* in 'a\.h5'"):
            read_bag(tmp_path / "a.h5", slide="slide_1")


def test_open_bag_refuses_a_file_that_is_being_written(tmp_path):
    path = tmp_path / "a.h5"
    write = f"import h5py; file = h5py.File({str(path)!r}, 'w'); file['features'] = [[1.0]]; file.flush(); input(1)"
    with subprocess.Popen([sys.executable, "-c", write], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.read(1)
        with pytest.raises(BagFileError, match=r"a bag file that no writer has open, got 'a\.h5'"):
            read_bag(path)
        process.communicate(b"\n")
    assert len(read_bag(path)["features"]) == 1


def test_read_bag_verifies_the_checksum_of_npz(tmp_path):
    path = make.npz(tmp_path / "a.npz", features=np.tile(FEATURES, (999, 1)))
    raw, at = path.read_bytes(), 50_000
    path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
    with pytest.raises(BagFileError, match=r"must match its checksum, got other bytes in 'a\.npz'"):
        read_bag(path)


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


@pytest.mark.parametrize("part", ["zarr.json", "features/zarr.json", "features/c/1/0"])
@pytest.mark.parametrize("content", [b"", b"\xff" * 40, None], ids=["empty", "noise", "absent"])
def test_open_zarr_names_a_damaged_store(tmp_path, part, content):
    path = make.zarr_group(tmp_path / "a.zarr")
    if content is None:
        (path / part).unlink()
    else:
        (path / part).write_bytes(content)
    with pytest.raises(ValueError, match=r"^`(path|keys)` must .* 'a\.zarr'"):
        read_bag(path)
