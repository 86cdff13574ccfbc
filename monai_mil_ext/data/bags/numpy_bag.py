"""Readers of bags stored as plain arrays: NumPy's .npy and .npz, and .safetensors."""

from __future__ import annotations

import io
import json
import math
import os
import struct
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from monai_mil_ext.utils.archives import member_start, open_archive

from .bag_layout import BagLayout, CoordinateSpec, feature_key, positive_number, text
from .bag_rows import (
    ArrayRows,
    BagFileError,
    Member,
    MemberRows,
    RawRows,
    Rows,
    Unreadable,
    check_array_count,
    check_header_size,
    is_numeric,
)

__all__ = ["named_arrays", "open_npy", "open_npz", "open_safetensors"]

MAX_HEADER = 100 << 20  # bytes, the limit of the safetensors library itself
HEAD = 1 << 14  # bytes; enough for the header of a .npy file and for a whole file with a single value
SAFETENSORS = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": torch.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def named_arrays(
    format_name: str,
    arrays: Mapping[str, Rows],
    attributes: Mapping[str, Any],
    unreadable: Mapping[str, Unreadable] | None = None,
) -> BagLayout:
    """Build the layout of a bag that consists of named arrays and attributes only."""
    check_array_count(len(arrays))
    features = feature_key({name: rows.shape for name, rows in arrays.items()}, unreadable)
    if features is None and "coords" not in arrays:
        raise BagFileError(f"`path` must hold features, got {sorted({*arrays, *attributes, *(unreadable or ())})}")
    for name, rows in arrays.items():
        if name in (features, "coords"):
            _drop_leading_axis(rows)
    columns = {"features" if name == features else name: rows for name, rows in arrays.items()}
    spec = CoordinateSpec(text(attributes.get("unit")), positive_number(attributes.get("tile_size")))
    return BagLayout(
        format_name,
        columns,
        attributes,
        encoder=text(attributes.get("encoder")),
        magnification=positive_number(attributes.get("magnification")),
        mpp=positive_number(attributes.get("mpp")),
        coordinate_spec=spec,
    )


def _drop_leading_axis(rows: Rows) -> None:
    """Drop the first axis of shape (1, N, F), and make (0,) an empty bag (0, 0)."""
    if rows.shape == (0,):
        rows.shape = (0, 0)
    elif len(rows.shape) == 3 and rows.shape[0] == 1:
        rows.shape = rows.shape[1:]


class _Header(NamedTuple):
    shape: tuple[int, ...]
    fortran_order: bool
    dtype: Any
    length: int  # in bytes; the data follow


def _npy_header(start: bytes) -> _Header:
    stream = io.BytesIO(start)
    version = np.lib.format.read_magic(stream)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(
        version
    )
    if read_header is None:
        raise BagFileError(f"`path` must have a header of version 1.0 or 2.0, got {version}")
    shape, fortran_order, dtype = read_header(stream)
    if min(shape, default=0) < 0:
        raise BagFileError(f"`path` must hold a shape without negative numbers, got {shape}")
    return _Header(shape, bool(fortran_order and len(shape) > 1), dtype, stream.tell())


def open_npy(file: BinaryIO) -> BagLayout:
    """Open a .npy file, whose only array holds the features."""
    header = _npy_header(os.pread(file.fileno(), HEAD, 0))
    if not is_numeric(header.dtype):
        return named_arrays("npy", {}, {}, {"features": Unreadable(str(header.dtype), header.shape)})
    size = os.fstat(file.fileno()).st_size
    return named_arrays("npy", {"features": _npy_rows(file, header, Member(0, size, None))}, {})


def _npy_rows(file: BinaryIO, header: _Header, member: Member) -> Rows:
    """Return the rows of an array in .npy format, which may be a member of an archive."""
    start = member.start + header.length
    if not header.fortran_order:
        return MemberRows(file.fileno(), header.shape, header.dtype, start, member)
    size = math.prod(header.shape)
    flat = MemberRows(file.fileno(), (size,), header.dtype, start, member)

    def load() -> Tensor:
        return flat.read(np.arange(size)).reshape(header.shape[::-1]).permute(*reversed(range(len(header.shape))))

    return ArrayRows(
        load, header.shape, header.dtype, "an array in Fortran order is read whole even for a few of its rows"
    )


def open_npz(file: BinaryIO, archive: zipfile.ZipFile) -> BagLayout:
    """Open the arrays of a .npz file, given as an archive too; compressed arrays are read whole."""
    arrays: dict[str, Rows] = {}
    unreadable: dict[str, Unreadable] = {}
    attributes: dict[str, Any] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        with archive.open(info) as member:
            header = _npy_header(member.read(HEAD))
        if not header.shape and not header.dtype.hasobject and info.file_size <= HEAD:
            attributes[name] = np.lib.format.read_array(io.BytesIO(archive.read(info)), allow_pickle=False).item()
        elif not is_numeric(header.dtype):
            unreadable[name] = Unreadable(str(header.dtype), header.shape if header.dtype.kind in "cf" else ())
        elif header.shape and info.compress_type == zipfile.ZIP_STORED:
            arrays[name] = _npy_rows(file, header, Member(member_start(file, info), info.file_size, info.CRC))
        elif header.shape:
            arrays[name] = _compressed_rows(file, info, header)
    return named_arrays("npz", arrays, attributes, unreadable)


def _compressed_rows(file: BinaryIO, info: zipfile.ZipInfo, header: _Header) -> Rows:
    check_header_size(math.prod(header.shape) * header.dtype.itemsize, info.compress_size)
    check_header_size(info.file_size, info.compress_size)

    def load() -> Any:
        with open_archive(file) as archive:
            return np.lib.format.read_array(io.BytesIO(archive.read(info.filename)), allow_pickle=False)

    return ArrayRows(
        load, header.shape, header.dtype, "a compressed .npz array is read whole even for a few of its rows"
    )


def open_safetensors(file: BinaryIO) -> BagLayout:
    """Open the arrays of a .safetensors file; its metadata become the attributes."""
    size = os.fstat(file.fileno()).st_size
    (length,) = struct.unpack("<Q", os.pread(file.fileno(), 8, 0))
    if length > min(MAX_HEADER, size - 8):
        raise BagFileError(f"`path` must hold its header, got one of {length} bytes in {size}")
    header = json.loads(os.pread(file.fileno(), length, 8))
    attributes = header.pop("__metadata__", {})
    check_array_count(len(header))
    arrays: dict[str, Rows] = {}
    unreadable: dict[str, Unreadable] = {}
    for name, entry in header.items():
        if entry["dtype"] not in SAFETENSORS:
            unreadable[name] = Unreadable(str(entry["dtype"]), tuple(entry["shape"]))
            continue
        first, last = entry["data_offsets"]
        rows = RawRows(file.fileno(), entry["shape"], SAFETENSORS[entry["dtype"]], [8 + length + first])
        if not 0 <= first <= last <= size - 8 - length or math.prod(rows.shape) * rows.stored.itemsize != last - first:
            raise BagFileError(f"`path` must hold the {rows.shape} values of {name!r}, got bytes {first} to {last}")
        if rows.shape:
            arrays[name] = rows
    return named_arrays("safetensors", arrays, attributes, unreadable)
