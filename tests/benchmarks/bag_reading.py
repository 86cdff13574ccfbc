"""Benchmark of reading a whole bag in half precision from a warm cache, relative to reading its bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from monai_mil_ext.data import read_bag, write_bag
from tests.benchmarks.measure import Measurement, paired_ratio

__all__ = ["FEATURES", "readers", "reading", "write"]

INSTANCES, FEATURES = 20_000, 1024
CHUNK = {"TRIDENT": 1, "CLAM": 32}  # rows a chunk as they write them: TRIDENT in half precision, CLAM in single


def write(path: Path, features: np.ndarray, layout: str) -> None:
    """Write a bag in the layout of a tool; for our layout, also a file of its raw bytes."""
    if layout == "ours":
        write_bag(path, {"features": features})
        features.tofile(path.with_suffix(".bin"))
        return
    values = features if layout == "TRIDENT" else features.astype(np.float32)
    with h5py.File(path, "w") as file:
        shape = (None, values.shape[1])
        file.create_dataset("features", data=values, chunks=(CHUNK[layout], values.shape[1]), maxshape=shape)


def readers(path: Path, layout: str) -> dict[str, Callable[[], object]]:
    """Return our reader and the simplest reader of the same values."""
    raw = path.with_suffix(".bin")

    def bare() -> np.ndarray:
        if layout == "ours":
            return np.fromfile(raw, np.float16).reshape(-1, FEATURES)
        with h5py.File(path) as file:
            return file["features"][:]

    return {"read_bag": lambda: read_bag(path), "bare": bare}


def reading(layout: str, instances: int = INSTANCES, repeats: int = 25) -> Measurement:
    """Measure the seconds of ``read_bag`` over those of raw bytes (our layout) or ``h5py[:]`` (layouts of others)."""
    features = np.random.default_rng(0).standard_normal((instances, FEATURES)).astype(np.float16)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bag.h5"
        write(path, features, layout)
        calls = readers(path, layout)
        assert np.array_equal(read_bag(path)["features"].numpy(), calls["bare"]())
        return paired_ratio(calls, "read_bag", "bare", repeats)
