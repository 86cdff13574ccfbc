"""Reader of bags that PyTorch saved (a tensor, an array or a dictionary of them), without running their code."""

from __future__ import annotations

import codecs
import math
import os
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from .bag_layout import BagLayout
from .bag_rows import ArrayRows, BagFileError, RawRows, Rows, is_numeric
from .numpy_bag import named_arrays

__all__ = ["open_torch"]

_RECONSTRUCT, _SCALAR = np.empty(0).__reduce__()[0], np.float32(0).__reduce__()[0]
# globals that pickled arrays of numbers refer to, under the names of NumPy 1 and 2; none of them can run code
NUMPY_GLOBALS: list[Any] = [
    codecs.encode,
    np.ndarray,
    np.dtype,
    *((_RECONSTRUCT, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *sorted({type(np.dtype(code)) for code in "?bBhHiIlLqQefd"}, key=str),
]


def open_torch(file: BinaryIO, zipped: bool) -> BagLayout:
    """Open a bag saved by ``torch.save``; rows are read on request.

    Args:
        file: open for reading.
        zipped: whether the file has the zip format; files of PyTorch before 1.6 are loaded whole.
    """
    content = _load(file, "meta" if zipped else "cpu")
    values = content if isinstance(content, Mapping) else {"features": content}
    arrays: dict[str, Rows] = {}
    attributes: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, (Tensor, np.ndarray)) and value.ndim:
            rows = _tensor_rows(file, str(name), value) if isinstance(value, Tensor) else _array_rows(value)
            arrays.update({str(name): rows} if rows is not None else {})
        elif isinstance(value, (str, int, float, np.generic, np.ndarray)):
            attributes[str(name)] = value.item() if isinstance(value, (np.generic, np.ndarray)) else value
    return named_arrays("torch", arrays, attributes)


def _load(file: BinaryIO, device: str, mmap: bool = False) -> Any:
    file.seek(0)
    with torch.serialization.safe_globals(NUMPY_GLOBALS):
        return torch.load(file.name if mmap else file, map_location=device, weights_only=True, mmap=mmap)


def _array_rows(value: np.ndarray[Any, Any]) -> Rows | None:
    return ArrayRows(lambda: value, value.shape, value.dtype) if is_numeric(value.dtype) else None


def _tensor_rows(file: BinaryIO, name: str, value: Tensor) -> Rows:
    value = value.detach()
    shape = [int(n) for n in value.shape]
    if value.layout != torch.strided or value.is_quantized:
        raise BagFileError(f"`path` must hold dense arrays, got {value.layout} under {name!r}")
    size = os.fstat(file.fileno()).st_size
    if math.prod(value.shape) * value.element_size() > size:
        raise BagFileError(f"`path` must hold the {tuple(value.shape)} values of its header, got {size} bytes")
    if value.device.type == "cpu":
        return ArrayRows(lambda: value, shape, value.dtype)
    storage = value.untyped_storage()
    offset = getattr(storage, "_checkpoint_offset", None)
    if offset is not None and value.is_contiguous() and value.dtype in _RAW:
        start = int(offset + value.storage_offset() * value.element_size())
        return RawRows(file.fileno(), shape, _RAW[value.dtype], [start])

    def load_mapped() -> Tensor:  # for views of larger tensors, and PyTorch versions that don't give the offset
        content = _load(file, "cpu", mmap=True)
        return (content[name] if isinstance(content, Mapping) else content).detach()

    return ArrayRows(load_mapped, shape, value.dtype)


_RAW: dict[torch.dtype, Any] = {
    **{torch.from_numpy(np.empty(0, code)).dtype: np.dtype(code) for code in "?bBhHiIlLefd"},
    torch.bfloat16: torch.bfloat16,
}
