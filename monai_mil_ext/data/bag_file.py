"""One bag a file: features of its instances and what belongs to them, in HDF5."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.utils import optional_import
from torch import Tensor

from monai_mil_ext.utils import atomic_path

__all__ = ["read_attributes", "read_bag", "write_bag"]

h5py, _ = optional_import("h5py")

CHUNK_ROWS = 64


def write_bag(
    path: str | os.PathLike[str], arrays: Mapping[str, Any], attributes: Mapping[str, Any] | None = None
) -> None:
    """Write a bag, as a whole or not at all.

    Layout: dataset ``features`` (N, F), the name that TRIDENT and CLAM use, stored in chunks of rows so that a part of
    a bag is read without the rest; beside it one dataset (N, ...) for every other array of the instances
    (``position``, ``slice_index``, ``instance_label``, ...); what belongs to the bag (``affine``, ``case_id``, ...) in
    the attributes of the file.

    Args:
        path: the file; its folder is made where it is missing.
        arrays: ``features`` and the arrays of the instances.
        attributes: strings, numbers and small arrays.

    Raises:
        ValueError: when ``features`` is not (N, F) or another array has not its N.
    """
    rows = {name: np.asarray(values) for name, values in arrays.items()}
    if "features" not in rows or rows["features"].ndim != 2:
        got = rows["features"].shape if "features" in rows else sorted(rows)
        raise ValueError(f"`arrays` must have features (N, F), got {got}.")
    sizes = {name: len(values) if values.ndim else None for name, values in rows.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"`arrays` must have the same number of instances, got {sizes}.")
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        for name, values in rows.items():
            chunks = (min(CHUNK_ROWS, len(values)), *values.shape[1:]) if values.size else None
            file.create_dataset(name, data=values, chunks=chunks)
        for name, value in (attributes or {}).items():
            file.attrs[name] = np.asarray(value) if isinstance(value, Tensor) else value


def read_bag(
    path: str | os.PathLike[str],
    keys: Sequence[str] = ("features",),
    start: int | None = None,
    stop: int | None = None,
    allow_missing_keys: bool = False,
) -> dict[str, Tensor]:
    """Read ``keys`` of a bag: rows ``[start, stop)`` of a dataset, or a numeric attribute of the file.

    With ``allow_missing_keys``, keys other than ``features`` that the file lacks are passed over.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is no undamaged HDF5 file, lacks a key, or the rows are not rows of it.
    """
    with _opened(path) as file:
        bag = {}
        for key in map(str, keys):
            if key in file:
                bag[key] = torch.from_numpy(file[key][_rows(len(file[key]), start, stop, Path(path).name)])
            elif key in file.attrs:
                bag[key] = torch.from_numpy(np.asarray(file.attrs[key]))
            elif key == "features" or not allow_missing_keys:
                there = sorted({*file.keys(), *file.attrs.keys()})
                raise ValueError(
                    f"`keys` must be in the bag file {Path(path).name!r}, got {key!r} where there are {there}."
                )
    return bag


def read_attributes(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what a bag file says of the whole bag.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is no undamaged HDF5 file.
    """
    with _opened(path) as file:
        return dict(file.attrs)


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    name = Path(path).name
    if not Path(path).is_file():
        raise FileNotFoundError(f"`path` must be a bag file that exists, got {name!r}.")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError) as error:  # cut, overwritten or another format
        raise ValueError(f"`path` must be an undamaged HDF5 bag file, got {name!r}.") from error


def _rows(size: int, start: int | None, stop: int | None, name: str) -> slice:
    first, last = 0 if start is None else int(start), size if stop is None else int(stop)
    if not 0 <= first <= last <= size:
        raise ValueError(f"`start` and `stop` must be rows 0 to {size} of {name!r}, got {first} to {last}.")
    return slice(first, last)
