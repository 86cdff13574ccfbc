"""Reading a bag beside what reads its bytes, in turns, from a warm cache; each row is (name, goal, ratio)."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from monai_mil_ext.data import read_bag, write_bag

INSTANCES, FEATURES = 20_000, 1024


class Row(NamedTuple):
    """A ratio of medians and what it may be at most."""

    name: str
    goal: float
    ratio: float


def bare(path):
    with h5py.File(path) as file:
        return file["features"][:]


def write(path, features, layout):
    if layout == "ours":
        write_bag(path, {"features": features})
        features.tofile(path.with_suffix(".bin"))
        return
    rows = {"TRIDENT": 1, "CLAM": 32}[layout]  # what they write: a row a chunk in half precision, 32 in single
    values = features if layout == "TRIDENT" else features.astype(np.float32)
    with h5py.File(path, "w") as file:
        shape = (None, values.shape[1])
        file.create_dataset("features", data=values, chunks=(rows, values.shape[1]), maxshape=shape)


def seconds(read):
    start = time.perf_counter()
    read()
    return time.perf_counter() - start


def compare(read, reference, repeats):
    """Median of ``read`` over ``reference``, run in turns so that a busy machine slows both."""
    read(), reference()
    return statistics.median(seconds(read) / seconds(reference) for _ in range(repeats))


def rows(instances=INSTANCES, repeats=25, folder=None):
    """Measure the three layouts against their goals."""
    features = np.random.default_rng(0).standard_normal((instances, FEATURES)).astype(np.float16)
    found = []
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        for layout, goal in (("ours", 1.3), ("TRIDENT", 1.1), ("CLAM", 1.1)):
            path = Path(temporary) / f"{layout}.h5"
            write(path, features, layout)
            raw = path.with_suffix(".bin")

            def reference(path=path, raw=raw, layout=layout):
                return np.fromfile(raw, np.float16).reshape(-1, FEATURES) if layout == "ours" else bare(path)

            assert np.array_equal(read_bag(path)["features"].numpy(), reference())
            ratio = compare(lambda path=path: read_bag(path), reference, repeats)
            name = f"read {layout} / {'raw bytes' if layout == 'ours' else 'bare h5py[:]'}"
            found.append(Row(name, goal, ratio))
            path.unlink()
    return found
