"""Reader of bags that PyTorch saved (a tensor, an array or a dictionary of them), without running their code."""

from __future__ import annotations

import codecs
import math
import os
from collections.abc import Mapping
from typing import Any, BinaryIO
from zipfile import ZipFile

import numpy as np
import torch
from torch import Tensor

from .bag_layout import BagLayout
from .bag_rows import ArrayRows, BagFileError, Rows, Unreadable, is_numeric
from .numpy_bag import named_arrays
from .torch_archive import TorchArchive

__all__ = ["open_torch"]

_RECONSTRUCT, _SCALAR = np.empty(0).__reduce__()[0], np.float32(0).__reduce__()[0]
# globals that pickled arrays of numbers refer to, under the names of NumPy 1 and 2; none of them can run code
NUMPY_GLOBALS: list[Any] = [
    codecs.encode,
    np.ndarray,
    np.dtype,
    *((_RECONSTRUCT, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *sorted({type(np.dtype(code)) for code in "?bBhHiIlLqQefdFD"}, key=str),
]
DTYPES = {torch.bfloat16, *(torch.from_numpy(np.empty(0, code)).dtype for code in "?bBhHiIlLefd")}


def open_torch(file: BinaryIO, archive: ZipFile | None) -> BagLayout:
    """Open a bag saved by ``torch.save``; rows are read on request.

    Args:
        file: open for reading.
        archive: the same file as a zip archive; None for a file of PyTorch before 1.6, which is loaded whole.
    """
    source = None if archive is None else TorchArchive(file)
    with torch.serialization.safe_globals(NUMPY_GLOBALS):
        content = _load(file) if source is None or archive is None else source.load(archive)
    values = content if isinstance(content, Mapping) else {"features": content}
    arrays: dict[str, Rows] = {}
    unreadable: dict[str, Unreadable] = {}
    attributes: dict[str, Any] = {}
    for name, value in ((str(key), value) for key, value in values.items()):
        if isinstance(value, (Tensor, np.ndarray)):
            rows = _tensor_rows(file, source, value) if isinstance(value, Tensor) else _array_rows(value)
            if isinstance(rows, Unreadable):
                unreadable[name] = rows
            elif value.ndim:
                arrays[name] = rows
            else:
                attributes[name] = rows.read(np.zeros(1, np.int64)).item()
        elif isinstance(value, (str, int, float, np.generic)):
            attributes[name] = value.item() if isinstance(value, np.generic) else value
    return named_arrays("torch", arrays, attributes, unreadable)


def _load(file: BinaryIO) -> Any:
    file.seek(0)
    return torch.load(file, map_location="cpu", weights_only=True)


def _array_rows(value: np.ndarray[Any, Any]) -> Rows | Unreadable:
    if not is_numeric(value.dtype):
        return Unreadable(str(value.dtype), value.shape if value.dtype.kind in "cf" else ())
    return ArrayRows(lambda: value, value.shape or (1,), value.dtype)


def _tensor_rows(file: BinaryIO, source: TorchArchive | None, value: Tensor) -> Rows | Unreadable:
    value = value.detach().as_subclass(Tensor)
    if value.is_nested or value.layout != torch.strided or value.is_quantized:
        kind = "nested" if value.is_nested else "quantized" if value.is_quantized else str(value.layout)
        return Unreadable(f"a {kind} tensor", () if value.is_nested else tuple(value.shape))
    if value.dtype not in DTYPES:
        return Unreadable(str(value.dtype).removeprefix("torch."), tuple(value.shape))
    size = os.fstat(file.fileno()).st_size
    if math.prod(value.shape) * value.element_size() > size and not (source and source.is_compressed(value)):
        raise BagFileError(f"`path` must hold the {tuple(value.shape)} values of its header, got {size} bytes")
    value = value.reshape(value.shape or (1,))
    if source is not None and value.is_meta:
        return source.rows(value)
    return ArrayRows(value.resolve_neg, value.shape, value.dtype)
