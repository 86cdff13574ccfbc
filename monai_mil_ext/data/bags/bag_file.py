"""Reader and writer of bag files: features of instances with coordinates, labels and metadata."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from monai_mil_ext.utils import atomic_path, check_local, optional_dependency
from monai_mil_ext.utils.archives import open_archive
from monai_mil_ext.utils.remote import ObjectPath, RangeFile, as_path, is_remote, local_copy

from .bag_layout import BagInfo, BagLayout, CoordinateSpec
from .bag_rows import BagFileError, Index, Rows, check_array_count, errors_for_file, is_numeric
from .hdf5_bag import open_hdf5, open_remote_hdf5
from .numpy_bag import open_npy, open_npz, open_safetensors
from .torch_bag import open_torch
from .zarr_bag import open_zarr

__all__ = ["OpenBag", "inspect_bag", "open_bag", "read_attributes", "read_bag", "write_bag"]

h5py = optional_dependency("", "h5py")

HDF5, NPY, ZIP, PICKLE = b"\x89HDF\r\n\x1a\n", b"\x93NUMPY", b"PK\x03\x04", b"\x80"
SAFETENSORS = b"\0\0\0\0{"  # the upper half of the header's length, then the first byte of the header
FEATURES = "features_"  # folder of an encoder in TRIDENT, features_uni_v1, in that of a job, 20x_256px_0px_overlap
SPLITS = ("", "train", "training", "val", "valid", "validation", "test")  # folders of a split, not of an encoder
JOB = re.compile(r"(\d+(?:\.\d+)?)x_(\d+)px(?:_.*)?")
METADATA_KEYS = ("encoder", "unit", "tile_size", "tile_size_estimated", "magnification", "mpp", "format", "level")
ESTIMATED_KEYS = ("unit", "tile_size", "tile_size_estimated")


def write_bag(
    path: str | os.PathLike[str],
    arrays: Mapping[str, Any],
    attributes: Mapping[str, Any] | None = None,
    array_attributes: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write a bag file atomically.

    The file is HDF5. Dataset ``features`` (N, F), named as in TRIDENT and CLAM, is contiguous, so that reading a whole
    bag is limited by its size in bytes only and any rows can be read without the others. Every other array of the
    instances (``coords``, ``position``, ``instance_label``, ...) is a separate dataset (N, ...). Values of the bag
    (``affine``, ``case_id``, ``encoder``, ``unit`` and ``tile_size`` of ``coords``, ...) are attributes of the file.

    Args:
        path: the file; its folder is created if it is missing.
        arrays: ``features`` and the other arrays of the instances.
        attributes: attributes of the bag: strings, numbers and small arrays.
        array_attributes: attributes of single arrays, for tools that look for them there.

    Raises:
        ValueError: when ``features`` is not (N, F), or another array does not have N rows.
    """
    rows = {name: np.asarray(values) for name, values in arrays.items()}
    if "features" not in rows or rows["features"].ndim != 2:
        got = rows["features"].shape if "features" in rows else sorted(rows)
        raise ValueError(f"`arrays` must have features (N, F), got {got}.")
    if rows["features"].dtype.kind == "c":
        raise ValueError(f"`arrays` must have features of real numbers, got {rows['features'].dtype}.")
    sizes = {name: len(values) if values.ndim else None for name, values in rows.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"`arrays` must have the same number of instances, got {sizes}.")
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        datasets = {name: file.create_dataset(name, data=values) for name, values in rows.items()}
        for name, value in (attributes or {}).items():
            _write_attribute(file, name, value)
        for array, values in (array_attributes or {}).items():
            # only other tools read these, so strings are written as h5py does by default
            datasets[array].attrs.update({k: np.asarray(v) if isinstance(v, Tensor) else v for k, v in values.items()})


def _write_attribute(file: Any, name: str, value: Any) -> None:
    if isinstance(value, str):  # of fixed length: a damaged heap of strings can make the HDF5 library loop forever
        kind = h5py.string_dtype("utf-8", max(1, len(value.encode())))
        file.attrs.create(name, value.encode(), dtype=kind)
    else:
        file.attrs[name] = np.asarray(value) if isinstance(value, Tensor) else value


class OpenBag:
    """Handle of an open bag file, for metadata and any rows of the bag; see :py:func:`open_bag`.

    Args:
        layout: content of the file.
        name: name of the file, for messages.
    """

    def __init__(self, layout: BagLayout, name: str) -> None:
        self._layout = layout
        self.name = name
        self._inferred: CoordinateSpec | None = None

    def __len__(self) -> int:
        return len(self._layout)

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the bag, under the names that the file uses."""
        with errors_for_file(self.name):
            return dict(self._layout.attributes)

    def info(self, estimate: bool = False) -> BagInfo:
        """Return information on the bag; see :py:func:`inspect_bag`."""
        layout = self._layout
        features = layout.columns.get("features")
        spec = self._infer_spec() if estimate else layout.coordinate_spec
        return BagInfo(
            num_instances=len(layout),
            in_features=None if features is None else features.shape[1],
            dtype=None if features is None else features.dtype,
            format=layout.format,
            level=layout.level,
            encoder=layout.encoder,
            unit=spec.unit,
            tile_size=spec.tile_size,
            tile_size_estimated=spec.estimated,
            magnification=layout.magnification,
            mpp=layout.mpp,
            input_size=layout.input_size,
            keys=tuple(sorted(set(layout.columns) - {"features"})),
        )

    def rows(self, start: int | None = None, stop: int | None = None) -> Index:
        """Return the indices of rows ``[start, stop)`` of the bag."""
        first, last = 0 if start is None else int(start), len(self) if stop is None else int(stop)
        if not 0 <= first <= last <= len(self):
            raise ValueError(
                f"`start` and `stop` must be rows 0 to {len(self)} of {self.name!r}, got {first} to {last}."
            )
        return np.arange(first, last)

    def read(
        self,
        keys: Sequence[str] = ("features",),
        rows: Sequence[int] | np.ndarray[Any, Any] | Tensor | range | None = None,
        allow_missing_keys: bool = False,
    ) -> dict[str, Any]:
        """Read ``keys``; of arrays only ``rows``, in the given order; see :py:func:`read_bag`."""
        wanted = np.arange(len(self)) if rows is None else _as_index(rows, len(self), self.name)
        ascending = rows is None or bool((np.diff(wanted) > 0).all())
        unique, order = (wanted, None) if ascending else np.unique(wanted, return_inverse=True)
        bag = {}
        for key in map(str, keys):
            value = self._read_value(key, unique, order)
            if value is not None:
                bag[key] = value
            elif key == "features" or not allow_missing_keys:
                available = sorted({*self._layout.columns, *self._layout.attributes})
                raise ValueError(
                    f"`keys` must be in the bag file {self.name!r}, got {key!r} where there are {available}."
                )
        return bag

    def _read_value(self, key: str, rows: Index, order: Index | None) -> Any:
        column = self._layout.columns.get(key)
        if column is not None:
            return self._read_column(column, key, rows, order)
        if key in METADATA_KEYS:  # as in `inspect_bag`, where a size of NaN is as good as not stated
            return getattr(self.info(estimate=key in ESTIMATED_KEYS), key)
        with errors_for_file(self.name):
            value = self._layout.attributes.get(key)
        if value is None or isinstance(value, (str, bytes)):
            return value
        values = np.asarray(value)
        return torch.from_numpy(values) if is_numeric(values.dtype) else value

    def _read_column(self, column: Rows, key: str, rows: Index, order: Index | None) -> Tensor:
        with errors_for_file(self.name):
            if column.shape[0] != len(self):
                got = f"{column.shape[0]} for {len(self)}"
                raise BagFileError(f"`path` must hold a row of {key} for every instance, got {got}")
            values = column.read(rows)
        if key == "coords":
            spec = self._layout.coordinate_spec if self._layout.coordinate_spec.unit else self._infer_spec()
            values = values if spec.scale == 1 else values.double() * spec.scale
        return values if order is None else values[torch.from_numpy(order)]

    def _infer_spec(self) -> CoordinateSpec:
        """Return unit and tile size, inferred from the coordinates if the file does not state them."""
        coords, infer = self._layout.columns.get("coords"), self._layout.infer_coordinates
        if self._inferred is None and infer and coords is not None and len(self):
            with errors_for_file(self.name):
                self._inferred = infer(coords.read(np.arange(len(self))).numpy())
        return self._inferred or self._layout.coordinate_spec


@contextmanager
def open_bag(path: str | os.PathLike[str], slide: str | None = None) -> Iterator[OpenBag]:
    """Open a bag file; its format is recognized by its content.

    Formats: ``.h5`` of :py:func:`write_bag`, TRIDENT, CLAM, STAMP, ASMIL and ACMIL; ``.pt`` (tensor, NumPy array,
    dictionary); ``.npy`` and ``.npz``; ``.safetensors``; zarr stores, including those of LazySlide and wsidata.

    Of an object in a store (``s3://bucket/a.h5``), HDF5 and zarr are read by ranges; other formats are copied whole,
    see :py:func:`monai_mil_ext.utils.remote.local_copy`.

    Args:
        path: the file, or the folder of a zarr store; or their address in an object store.
        slide: name of the bag in a file with several: an HDF5 group or a wsidata table.

    Raises:
        FileNotFoundError: when there is no such file.
        BagFileError: (a ``ValueError``) when the file is damaged, locked or holds no bag; the message names the file.
    """
    file = as_path(path)
    if not is_remote(file):
        check_local(path=file)
    with ExitStack() as stack:
        with errors_for_file(file.name):
            layout = _with_folder_names(stack.enter_context(_open_layout(file, slide)), file)
        yield OpenBag(layout, file.name)


def inspect_bag(path: str | os.PathLike[str], slide: str | None = None, estimate: bool = False) -> BagInfo:
    """Return size, width, format, encoder, unit and tile size of a bag without reading its features.

    Args:
        path: see :py:func:`open_bag`.
        slide: see :py:func:`open_bag`.
        estimate: whether to infer a missing tile size (CLAM) or unit (STAMP before 2.0) from the coordinates.

    Raises:
        FileNotFoundError: when there is no such file.
        BagFileError: see :py:func:`open_bag`.

    Example:
        >>> np.save("slide.npy", np.zeros((5, 3), np.float16))
        >>> info = inspect_bag("slide.npy")
        >>> info.num_instances, info.in_features, info.dtype, info.format
        (5, 3, torch.float16, 'npy')
    """
    with open_bag(path, slide) as bag:
        return bag.info(estimate)


def read_bag(
    path: str | os.PathLike[str],
    keys: Sequence[str] = ("features",),
    start: int | None = None,
    stop: int | None = None,
    allow_missing_keys: bool = False,
    rows: Sequence[int] | np.ndarray[Any, Any] | Tensor | None = None,
    slide: str | None = None,
) -> dict[str, Any]:
    """Read arrays and attributes of a bag.

    ``features`` are the features, whatever their name in the file, in the dtype of the file; ``coords`` are corners
    (x, y) of tiles in the unit of :py:class:`BagInfo`; ``unit``, ``tile_size``, ``encoder``, ``magnification``,
    ``mpp``, ``format`` and ``level`` are available if the file states them; every other key is the name of an array of
    the instances or of an attribute. Only the requested rows are read from disk.

    Args:
        path: see :py:func:`open_bag`.
        keys: names of the arrays and attributes to read.
        start: first row.
        stop: row after the last.
        allow_missing_keys: whether to ignore keys, other than ``features``, that the file lacks.
        rows: indices of rows, in any order and with repeats, instead of ``start`` and ``stop``.
        slide: see :py:func:`open_bag`.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file can't be read (:py:class:`BagFileError`), lacks a key or lacks some of the rows.
    """
    if rows is not None and (start is not None or stop is not None):
        raise ValueError(f"`rows` must be given without `start` and `stop`, got {start} and {stop} too.")
    with open_bag(path, slide) as bag:
        wanted = rows if start is None and stop is None else bag.rows(start, stop)
        return bag.read(keys, wanted, allow_missing_keys)


def read_attributes(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the attributes of a bag file.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is no undamaged bag file.
    """
    with open_bag(path) as bag:
        return bag.attributes


@contextmanager
def _open_layout(path: Path, slide: str | None) -> Iterator[BagLayout]:
    if isinstance(path, ObjectPath):
        with _open_object(path, slide) as layout:
            yield layout
        return
    if path.is_dir():
        yield open_zarr(path, slide)
        return
    if os.path.exists(path) and not os.path.isfile(path):  # opening a pipe waits for its writer
        raise BagFileError("`path` must be a file or a folder, got a pipe or a device")
    with path.open("rb", buffering=0) as file:
        signature = os.pread(file.fileno(), 9, 0)
        if signature.startswith(HDF5):
            with open_hdf5(path, slide) as layout:
                yield layout
        else:
            yield _open_by_signature(signature, file)


@contextmanager
def _open_object(path: ObjectPath, slide: str | None) -> Iterator[BagLayout]:
    info = path.info()
    if info["type"] == "directory":
        yield open_zarr(path, slide)
        return
    source = RangeFile(path, int(info["size"]))
    if source.read_at(0, min(9, source.size)).startswith(HDF5):
        with open_remote_hdf5(source, slide) as layout:
            yield layout
        return
    with local_copy(path) as copy, copy.open("rb", buffering=0) as file:
        yield _open_by_signature(os.pread(file.fileno(), 9, 0), file)


def _with_folder_names(layout: BagLayout, path: Path) -> BagLayout:
    """Return the layout with what TRIDENT states in the names of folders only: encoder, magnification, tile size."""
    encoder, job = path.parent.name, JOB.fullmatch(path.parent.parent.name)
    known: dict[str, Any] = {}
    if layout.encoder is None and encoder.startswith(FEATURES) and encoder[len(FEATURES) :].lower() not in SPLITS:
        known["encoder"] = encoder[len(FEATURES) :]
        if job and layout.mpp is None and layout.magnification is None:
            known |= {"magnification": float(job[1]), "input_size": layout.input_size or float(job[2])}
    return replace(layout, **known) if known else layout


def _open_by_signature(signature: bytes, file: BinaryIO) -> BagLayout:
    if signature.startswith(NPY):
        return open_npy(file)
    if signature.startswith(ZIP):
        return _open_zip(file)
    if signature[4:9] == SAFETENSORS:
        return open_safetensors(file)
    if signature[:1] == PICKLE:
        return open_torch(file, archive=None)
    raise BagFileError(f"`path` must be a bag file of a known format, got one that begins with {signature!r}")


def _open_zip(file: BinaryIO) -> BagLayout:
    with open_archive(file) as archive:
        names = archive.namelist()
        check_array_count(len(names))
        if names and all(name.endswith(".npy") for name in names):
            return open_npz(file, archive)
        if any(name.endswith("data.pkl") for name in names):
            return open_torch(file, archive)
    raise BagFileError(f"`path` must be a .npz or .pt archive, got one with {sorted(names)[:3]}")


def _as_index(rows: Any, size: int, name: str) -> Index:
    index = np.asarray(rows)
    if index.ndim != 1 or (index.size and index.dtype.kind not in "iu"):
        raise ValueError(f"`rows` must be a list of integers, got {index.dtype} of shape {index.shape}.")
    if index.size and not 0 <= index.min() <= index.max() < size:
        raise ValueError(f"`rows` must be from 0 to {size - 1} in {name!r}, got {index.min()} to {index.max()}.")
    return index.astype(np.int64)
