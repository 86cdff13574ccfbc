"""One bag a file: features of its instances and what belongs to them. Ours is HDF5; those of others are read too."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from monai.utils import optional_import
from torch import Tensor

from monai_mil_ext.utils import atomic_path

from .array_bag import open_npy, open_npz, open_safetensors
from .bag_layout import BagInfo, BagLayout, Place
from .bag_rows import BagFileError, Index, Rows, is_numeric, named_errors
from .hdf5_bag import open_hdf5
from .torch_bag import open_torch
from .zarr_bag import open_zarr

__all__ = ["OpenBag", "inspect_bag", "open_bag", "read_attributes", "read_bag", "write_bag"]

h5py, _ = optional_import("h5py")

HDF5, NPY, ZIP, PICKLE = b"\x89HDF\r\n\x1a\n", b"\x93NUMPY", b"PK\x03\x04", b"\x80"
SAFETENSORS = b"\0\0\0\0{"  # the upper half of the length of its header, and the header
TOLD = ("encoder", "unit", "tile_size", "magnification", "mpp", "format", "level")


def write_bag(
    path: str | os.PathLike[str],
    arrays: Mapping[str, Any],
    attributes: Mapping[str, Any] | None = None,
    array_attributes: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write a bag, as a whole or not at all.

    Layout: dataset ``features`` (N, F), the name that TRIDENT and CLAM use, in one piece, so that all of a bag is read
    as fast as its bytes and any rows of it without the rest; beside it one dataset (N, ...) for every other array of
    the instances (``coords``, ``position``, ``instance_label``, ...); what belongs to the bag (``affine``, ``case_id``,
    ``encoder``, ``unit`` and ``tile_size`` of ``coords``, ...) in the attributes of the file.

    Args:
        path: the file; its folder is made where it is missing.
        arrays: ``features`` and the arrays of the instances.
        attributes: strings, numbers and small arrays.
        array_attributes: the same of single arrays, where other tools look for them.

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
        places = {name: file.create_dataset(name, data=values) for name, values in rows.items()}
        for name, value in (attributes or {}).items():
            _write_attribute(file, name, value)
        for array, words in (array_attributes or {}).items():  # strings as others read them; we don't
            places[array].attrs.update({k: np.asarray(v) if isinstance(v, Tensor) else v for k, v in words.items()})


def _write_attribute(file: Any, name: str, value: Any) -> None:
    if isinstance(value, str):  # in place: a damaged heap of strings can keep the HDF5 library busy for ever
        kind = h5py.string_dtype("utf-8", max(1, len(value.encode())))
        file.attrs.create(name, value.encode(), dtype=kind)
    else:
        file.attrs[name] = np.asarray(value) if isinstance(value, Tensor) else value


class OpenBag:
    """A bag file that is open: what it holds, and rows of it; see :py:func:`open_bag`.

    Args:
        layout: what was found.
        name: of the file, for messages.
    """

    def __init__(self, layout: BagLayout, name: str) -> None:
        self._layout = layout
        self.name = name
        self._place: Place | None = None

    def __len__(self) -> int:
        return len(self._layout)

    @property
    def attributes(self) -> dict[str, Any]:
        """What the file says of the whole bag, in its own words."""
        with named_errors(self.name):
            return dict(self._layout.attributes)

    def info(self, estimate: bool = False) -> BagInfo:
        """Tell what the bag is; see :py:func:`inspect_bag`."""
        layout = self._layout
        features = layout.columns.get("features")
        place = self._find_place() if estimate else layout.place
        return BagInfo(
            num_instances=len(layout),
            in_features=None if features is None else features.shape[1],
            dtype=None if features is None else features.dtype,
            format=layout.format,
            level=layout.level,
            encoder=layout.encoder,
            unit=place.unit,
            tile_size=place.tile_size,
            tile_size_estimated=place.estimated,
            magnification=layout.magnification,
            mpp=layout.mpp,
            keys=tuple(sorted(set(layout.columns) - {"features"})),
        )

    def rows(self, start: int | None = None, stop: int | None = None) -> Index:
        """Rows ``[start, stop)`` of the bag, by number."""
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
        """Read ``keys``, of the arrays only ``rows``, in the order given; see :py:func:`read_bag`."""
        wanted = np.arange(len(self)) if rows is None else _checked(rows, len(self), self.name)
        ascending = rows is None or bool((np.diff(wanted) > 0).all())
        unique, order = (wanted, None) if ascending else np.unique(wanted, return_inverse=True)
        bag = {}
        for key in map(str, keys):
            value = self._value(key, unique, order)
            if value is not None:
                bag[key] = value
            elif key == "features" or not allow_missing_keys:
                there = sorted({*self._layout.columns, *self._layout.attributes})
                raise ValueError(f"`keys` must be in the bag file {self.name!r}, got {key!r} where there are {there}.")
        return bag

    def _value(self, key: str, rows: Index, order: Index | None) -> Any:
        column = self._layout.columns.get(key)
        if column is not None:
            return self._column(column, key, rows, order)
        told = getattr(self.info(estimate=key in ("unit", "tile_size")), key) if key in TOLD else None
        with named_errors(self.name):
            value = self._layout.attributes.get(key) if told is None else told
        if value is None or isinstance(value, (str, bytes)):
            return value
        values = np.asarray(value)
        return torch.from_numpy(values) if is_numeric(values.dtype) else value

    def _column(self, column: Rows, key: str, rows: Index, order: Index | None) -> Tensor:
        with named_errors(self.name):
            if column.shape[0] != len(self):
                got = f"{column.shape[0]} for {len(self)}"
                raise BagFileError(f"`path` must hold a row of {key} for every instance, got {got}")
            values = column.read(rows)
        if key == "coords":
            place = self._layout.place if self._layout.place.unit else self._find_place()
            values = values if place.scale == 1 else values.double() * place.scale
        return values if order is None else values[torch.from_numpy(order)]

    def _find_place(self) -> Place:
        """Unit and tile size, from the coordinates where nothing else tells them."""
        coords, locate = self._layout.columns.get("coords"), self._layout.locate
        if self._place is None and locate and coords is not None and len(self):
            with named_errors(self.name):
                self._place = locate(coords.read(np.arange(len(self))).numpy())
        return self._place or self._layout.place


@contextmanager
def open_bag(path: str | os.PathLike[str], slide: str | None = None) -> Iterator[OpenBag]:
    """Open a bag file of any format; which one it is, is seen from its content.

    Formats: our own HDF5, TRIDENT, CLAM, STAMP, ASMIL and ACMIL ``.h5``; ``.pt`` (tensor, NumPy array, dictionary);
    ``.npy`` and ``.npz``; ``.safetensors``; zarr, LazySlide and wsidata among it.

    Args:
        path: the file, or the folder of a zarr store.
        slide: which bag, where a file holds several: a group of HDF5, a table of wsidata.

    Raises:
        FileNotFoundError: when there is no such file.
        BagFileError: (a ``ValueError``) when the file is damaged, locked, or holds no bag; the file is named.
    """
    file = Path(path)
    with ExitStack() as stack:
        with named_errors(file.name):
            layout = stack.enter_context(_layout_of(file, slide))
        yield OpenBag(layout, file.name)


def inspect_bag(path: str | os.PathLike[str], slide: str | None = None, estimate: bool = False) -> BagInfo:
    """Tell size, width, format, encoder, unit and tile size of a bag without reading its features.

    Args:
        path: see :py:func:`open_bag`.
        slide: see :py:func:`open_bag`.
        estimate: read the coordinates where only they tell the tile size (CLAM) or the unit (STAMP before 2.0).

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
    """Read ``keys`` of a bag: rows of its arrays, or what it says of itself.

    ``features`` are those of the format, whatever their name in the file, and have the dtype of the file; ``coords``
    (x, y) are corners of tiles in the unit of :py:class:`BagInfo`; ``unit``, ``tile_size``, ``encoder``,
    ``magnification``, ``mpp``, ``format`` and ``level`` are there where the file tells them; every other key is an
    array of the instances or an attribute under its own name. Only the rows that are asked for are read.

    Args:
        path: see :py:func:`open_bag`.
        keys: what to read.
        start: first row.
        stop: row after the last.
        allow_missing_keys: whether to pass over keys, other than ``features``, that the file lacks.
        rows: which rows, in any order and as often as wanted, instead of ``start`` and ``stop``.
        slide: see :py:func:`open_bag`.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file can't be read (:py:class:`BagFileError`), lacks a key, or has not those rows.
    """
    if rows is not None and (start is not None or stop is not None):
        raise ValueError(f"`rows` must be given without `start` and `stop`, got {start} and {stop} too.")
    with open_bag(path, slide) as bag:
        part = rows if start is None and stop is None else bag.rows(start, stop)
        return bag.read(keys, part, allow_missing_keys)


def read_attributes(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what a bag file says of the whole bag.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is no undamaged bag file.
    """
    with open_bag(path) as bag:
        return bag.attributes


@contextmanager
def _layout_of(path: Path, slide: str | None) -> Iterator[BagLayout]:
    if path.is_dir():
        yield open_zarr(path, slide)
        return
    with path.open("rb", buffering=0) as file:
        start = os.pread(file.fileno(), 9, 0)
        if start.startswith(HDF5):
            with open_hdf5(path, slide) as layout:
                yield layout
        else:
            yield _opener(start, file)


def _opener(start: bytes, file: BinaryIO) -> BagLayout:
    if start.startswith(NPY):
        return open_npy(file)
    if start.startswith(ZIP):
        return _open_zip(file)
    if start[4:9] == SAFETENSORS:
        return open_safetensors(file)
    if start[:1] == PICKLE:
        return open_torch(file, zipped=False)
    raise BagFileError(f"`path` must be a bag file of a known format, got one that begins with {start!r}")


def _open_zip(file: BinaryIO) -> BagLayout:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    if names and all(name.endswith(".npy") for name in names):
        return open_npz(file)
    if any(name.endswith("data.pkl") for name in names):
        return open_torch(file, zipped=True)
    raise BagFileError(f"`path` must be a .npz or .pt archive, got one with {sorted(names)[:3]}")


def _checked(rows: Any, size: int, name: str) -> Index:
    wanted = np.asarray(rows)
    if wanted.ndim != 1 or (wanted.size and wanted.dtype.kind not in "iu"):
        raise ValueError(f"`rows` must be a list of integers, got {wanted.dtype} of shape {wanted.shape}.")
    if wanted.size and not 0 <= wanted.min() <= wanted.max() < size:
        raise ValueError(f"`rows` must be from 0 to {size - 1} in {name!r}, got {wanted.min()} to {wanted.max()}.")
    return wanted.astype(np.int64)
