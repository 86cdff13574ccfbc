"""Readers of bags stored as plain arrays: NumPy's .npy and .npz, and .safetensors."""

from __future__ import annotations

import io
import json
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .bag_layout import BagLayout, CoordinateSpec, feature_key, text
from .bag_rows import ArrayRows, BagFileError, Index, RawRows, Rows, check_header_size, is_numeric

__all__ = ["named_arrays", "open_npy", "open_npz", "open_safetensors", "stored_at"]

MAX_HEADER = 100 << 20  # bytes, the limit of the safetensors library itself
HEAD = 1 << 14  # bytes; enough for the header of a .npy file and for a whole file with a single value
LOCAL_HEADER = struct.Struct("<4s2xH18xHH")
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


def named_arrays(format_name: str, arrays: Mapping[str, Rows], attributes: Mapping[str, Any]) -> BagLayout:
    """Build the layout of a bag that consists of named arrays and attributes only."""
    features = feature_key({name: rows.shape for name, rows in arrays.items()})
    if features is None and "coords" not in arrays:
        raise BagFileError(f"`path` must hold features, got {sorted({*arrays, *attributes})}")
    for name, rows in arrays.items():
        if name in (features, "coords"):
            _drop_leading_axis(rows)
    columns = {"features" if name == features else name: rows for name, rows in arrays.items()}
    spec = CoordinateSpec(text(attributes.get("unit")), _number(attributes.get("tile_size")))
    encoder = text(attributes.get("encoder"))
    return BagLayout(format_name, columns, attributes, encoder=encoder, coordinate_spec=spec)


def _drop_leading_axis(rows: Rows) -> None:
    """Drop the first axis of shape (1, N, F), and make (0,) an empty bag (0, 0)."""
    if rows.shape == (0,):
        rows.shape = (0, 0)
    elif len(rows.shape) == 3 and rows.shape[0] == 1:
        rows.shape = rows.shape[1:]


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


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
    return named_arrays("npy", {"features": _npy_rows(file, header, 0)}, {})


def _npy_rows(file: BinaryIO, header: _Header, start: int, crc: int | None = None) -> Rows:
    """Return the rows of an array in .npy format that starts at byte ``start`` of ``file``."""
    size = math.prod(header.shape)
    if not header.fortran_order:
        return _CheckedRows(file, header, start, crc)
    flat = RawRows(file.fileno(), (size,), header.dtype, [start + header.length])

    def load() -> Tensor:
        return flat.read(np.arange(size)).reshape(header.shape[::-1]).permute(*reversed(range(len(header.shape))))

    return ArrayRows(
        load, header.shape, header.dtype, "an array in Fortran order is read whole even for a few of its rows"
    )


class _CheckedRows(RawRows):
    """Rows of a .npy array; reading all of them verifies the checksum of the archive, if there is one."""

    def __init__(self, file: BinaryIO, header: _Header, start: int, crc: int | None) -> None:
        super().__init__(file.fileno(), header.shape, header.dtype, [start + header.length])
        self.header_span, self.crc = (start, header.length), crc

    def read(self, rows: Index) -> Tensor:
        """Read ``rows``; see :py:class:`Rows`."""
        values = super().read(rows)
        if self.crc is not None and len(rows) == self.shape[0] and self.stored.isnative:
            head = os.pread(self.file, self.header_span[1], self.header_span[0])
            if zlib.crc32(np.ascontiguousarray(values.numpy()).view(np.uint8).data, zlib.crc32(head)) != self.crc:
                raise BagFileError("`path` must match its checksum, got other bytes")
        return values


def open_npz(file: BinaryIO) -> BagLayout:
    """Open the arrays of a .npz file; compressed arrays are read whole."""
    arrays: dict[str, Rows] = {}
    attributes: dict[str, Any] = {}
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            with archive.open(info) as member:
                header = _npy_header(member.read(HEAD))
            if not header.shape and not header.dtype.hasobject and info.file_size <= HEAD:
                attributes[name] = np.lib.format.read_array(io.BytesIO(archive.read(info)), allow_pickle=False).item()
            elif header.shape and is_numeric(header.dtype):
                stored = info.compress_type == zipfile.ZIP_STORED
                arrays[name] = (
                    _npy_rows(file, header, stored_at(file, info), info.CRC)
                    if stored
                    else _compressed_rows(file, info, header)
                )
    return named_arrays("npz", arrays, attributes)


def stored_at(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Return the offset of the data of an uncompressed member of a zip archive."""
    signature, flags, name, extra = LOCAL_HEADER.unpack(os.pread(file.fileno(), LOCAL_HEADER.size, info.header_offset))
    if signature != b"PK\x03\x04" or flags & 1:
        raise BagFileError(
            "`path` must be an undamaged archive, got members that are not at the offsets of its directory"
        )
    return int(info.header_offset + LOCAL_HEADER.size + name + extra)


def _compressed_rows(file: BinaryIO, info: zipfile.ZipInfo, header: _Header) -> Rows:
    check_header_size(math.prod(header.shape) * header.dtype.itemsize, info.compress_size)
    check_header_size(info.file_size, info.compress_size)

    def load() -> Any:
        with zipfile.ZipFile(file) as archive:
            return np.lib.format.read_array(io.BytesIO(archive.read(info)), allow_pickle=False)

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
    arrays: dict[str, Rows] = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        rows = RawRows(file.fileno(), entry["shape"], SAFETENSORS[entry["dtype"]], [8 + length + first])
        if not 0 <= first <= last <= size - 8 - length or math.prod(rows.shape) * rows.stored.itemsize != last - first:
            raise BagFileError(f"`path` must hold the {rows.shape} values of {name!r}, got bytes {first} to {last}")
        if rows.shape:
            arrays[name] = rows
    return named_arrays("safetensors", arrays, attributes)
