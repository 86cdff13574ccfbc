"""Reader of bags in zarr: stores of LazySlide and wsidata, plain groups and arrays."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from monai_mil_ext.utils import optional_dependency
from monai_mil_ext.utils.remote import ObjectPath, local_copy

from .bag_layout import BagLayout, CoordinateSpec, positive_number
from .bag_rows import (
    MAX_ARRAYS,
    UNFINISHED,
    ArrayRows,
    BagFileError,
    BlockRows,
    Index,
    Rows,
    Unreadable,
    check_array_count,
    check_header_size,
    is_numeric,
)
from .numpy_bag import named_arrays

__all__ = ["open_zarr"]

parquet = optional_dependency("zarr", "pyarrow.parquet")
zarr = optional_dependency("zarr", "zarr")


def open_zarr(path: Path, table: str | None = None) -> BagLayout:
    """Open a zarr store: an array of features, a group with such an array, or a slide of wsidata.

    Args:
        path: folder of the store, or its address in an object store, of which the requested chunks are fetched.
        table: name of the table of features, for a slide with several.
    """
    try:
        store = zarr.open(_store(path), mode="r")
    except FileNotFoundError as error:
        raise BagFileError("`path` must be a zarr store where it is a folder, got no metadata") from error
    if not hasattr(store, "keys"):
        return _group(path, {"features": store}, {})
    if "tables" in store:
        return _slide(store, path, table)
    arrays = dict(islice(store.arrays(), MAX_ARRAYS + 1))
    check_array_count(len(arrays))
    return _group(path, arrays, dict(store.attrs))


def _store(path: Path) -> Any:
    """Return what zarr opens."""
    if not isinstance(path, ObjectPath):
        return str(path)
    return zarr.storage.FsspecStore.from_url(str(path), {"asynchronous": True}, read_only=True)


def _group(path: Path, arrays: Mapping[str, Any], attributes: Mapping[str, Any]) -> BagLayout:
    rows = {name: _rows(array, path) for name, array in arrays.items() if is_numeric(array.dtype) and array.ndim}
    unreadable = {
        name: Unreadable(str(array.dtype), array.shape if getattr(array.dtype, "kind", "") in ("c", "f") else ())
        for name, array in arrays.items()
        if not is_numeric(array.dtype)
    }
    return named_arrays("zarr", rows, attributes, unreadable)


class _ZarrRows(BlockRows):
    """Rows of a zarr array that refuse missing chunks, for which zarr itself returns zeros."""

    def read(self, rows: Index) -> Tensor:
        """Read ``rows``; see :py:class:`Rows`."""
        if self.array.nchunks_initialized < self.array.nchunks:
            raise BagFileError(UNFINISHED)
        return super().read(rows)


def _rows(array: Any, root: Path) -> Rows:
    folder = root / array.path if array.path else root
    if isinstance(folder, ObjectPath):
        stored = sum(folder.sizes().values())
    else:
        stored = sum(entry.stat().st_size for entry in folder.rglob("*") if entry.is_file())
    check_header_size(array.nbytes, stored)
    check_header_size(int(np.prod(array.chunks, dtype=object)) * array.dtype.itemsize, stored)
    return _ZarrRows(array, leading=array.ndim == 3 and array.shape[0] == 1)


def _slide(store: Any, path: Path, table: str | None) -> BagLayout:
    tables = {name: group for name, group in store["tables"].groups() if "X" in group and hasattr(group["X"], "shape")}
    if table not in tables and not (table is None and len(tables) == 1):
        raise BagFileError(f"`slide` must name a table of features, got {table!r} among {sorted(tables)}")
    name = next(iter(tables)) if table is None else table
    group = tables[name]
    region = group.attrs.get("region")
    tiles = str(region[0] if isinstance(region, list) and region else region)
    spec = dict(store.attrs).get("tile_spec", {}).get(tiles, {})
    columns: dict[str, Rows] = {"features": _rows(group["X"], path)}
    shapes = path / "shapes" / tiles / "shapes.parquet"
    if Path(tiles).name == tiles and shapes.is_file():
        ids = np.asarray(group["obs"][group.attrs.get("instance_key", "tile_id")])
        count = columns["features"].shape[0]
        columns["coords"] = ArrayRows(lambda: _corners(shapes, ids), (count, 2), np.dtype(np.float64))
    slide = dict(store.attrs).get("slide_properties", {})
    return BagLayout(
        "wsidata",
        columns,
        _slide_facts(slide),
        encoder=name.removesuffix(f"_{tiles}"),
        magnification=positive_number(slide.get("magnification")),
        mpp=positive_number(spec.get("mpp")),
        coordinate_spec=CoordinateSpec("px", _level0_tile_size(spec)),
    )


def _slide_facts(slide: Mapping[str, Any]) -> dict[str, Any]:
    """Return size, resolution and magnification of the slide at level 0."""
    shape = slide.get("shape")
    sides = [positive_number(side) for side in reversed(shape)] if isinstance(shape, list) and len(shape) == 2 else []
    facts = {"slide_mpp": positive_number(slide.get("mpp"))}
    facts["level0_magnification"] = positive_number(slide.get("magnification"))
    return {
        **({"spatial_shape": np.array(sides, dtype=np.int64)} if sides and all(sides) else {}),
        **{name: value for name, value in facts.items() if value is not None},
    }


def _level0_tile_size(spec: Mapping[str, Any]) -> float | None:
    """Return the tile size in pixels of level 0."""
    size = positive_number(spec.get("width", 0)), positive_number(spec.get("base_downsample", 0))
    return None if None in size else positive_number(int(math.prod(size)))  # type: ignore[arg-type]


def _corners(file: Path, ids: NDArray[Any]) -> NDArray[np.float64]:
    """Return the top left corners (n, 2) of the tiles ``ids`` from their polygons in GeoParquet."""
    with local_copy(file) as copy:
        tiles = parquet.read_table(os.fspath(copy))
    known_ids = np.asarray(tiles["tile_id"]) if "tile_id" in tiles.column_names else np.arange(len(tiles))
    order = np.argsort(known_ids, kind="stable")
    rows = np.minimum(np.searchsorted(known_ids, ids, sorter=order), len(known_ids) - 1)
    if len(known_ids) == 0 or (known_ids[order[rows]] != ids).any():
        raise BagFileError("`path` must hold a tile for every row of features, got features without one")
    if {"x", "y"} <= set(tiles.column_names):
        corners = np.stack([np.asarray(tiles[axis], np.float64) for axis in "xy"], 1)
    else:
        corners = np.array([_corner(polygon.as_py()) for polygon in tiles["geometry"]])
    return corners[order[rows]]


def _corner(polygon: bytes) -> tuple[float, float]:
    """Return the smallest x and y of a polygon in well-known binary (byte order, type 3, ring count, points)."""
    order = "<" if polygon[0] else ">"
    kind, _, points = struct.unpack_from(f"{order}III", polygon, 1)
    if kind != 3:
        raise BagFileError(f"`path` must hold tiles as polygons, got geometry of type {kind}")
    corners = np.frombuffer(polygon, f"{order}f8", points * 2, 13).reshape(points, 2)
    return float(corners[:, 0].min()), float(corners[:, 1].min())
