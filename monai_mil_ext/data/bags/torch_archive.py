"""Tensors in an archive of ``torch.save``, found without reading their values.

``torch.load`` has a mode for this, the device "meta", but it ends the process if the byte order is that of another
machine, and it computes offsets that are wrong once the archive is packed again by another program.
"""

from __future__ import annotations

import io
import sys
import zipfile
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch import _weights_only_unpickler as weights_only

from monai_mil_ext.utils.archives import member_start, open_archive

from .bag_rows import ArrayRows, BagFileError, Member, MemberRows, Rows, Unreadable, check_header_size

__all__ = ["TorchArchive"]

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those that PyTorch reads
VERSIONS = range(1, 11)  # of the archive format
BYTE_ORDERS = {b"little": "little", b"big": "big"}
COMPRESSED = "a compressed .pt archive is read whole even for a few of its rows"
RAW: dict[torch.dtype, Any] = {
    **{torch.from_numpy(np.empty(0, code)).dtype: np.dtype(code) for code in "?bBhHiIlLefd"},
    torch.bfloat16: torch.bfloat16,
}


class _Storage(NamedTuple):
    typed: torch.storage.TypedStorage  # kept alive, so that no other storage gets its address
    info: zipfile.ZipInfo
    itemsize: int  # bytes of the numbers whose byte order counts


class TorchArchive:
    """Content of an archive, whose tensors are on the device "meta"; :py:meth:`rows` reads their values.

    Args:
        file: the open file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self._members: dict[str, zipfile.ZipInfo] = {}
        self._storages: dict[int, _Storage] = {}
        self._loaded: dict[Any, torch.storage.TypedStorage] = {}
        self._swapped = False

    def load(self, archive: zipfile.ZipFile) -> Any:
        """Return the content of ``archive``, which is that of the file; only allowed types are unpickled."""
        infos = archive.infolist()
        prefix = f"{infos[0].filename.partition('/')[0]}/"
        # PyTorch looks for names without regard to case
        self._members = {i.filename.removeprefix(prefix).lower(): i for i in infos if i.filename.startswith(prefix)}
        if len({info.filename.lower() for info in infos}) < len(infos):
            raise BagFileError("`path` must be an archive with one member of each name, got several")
        if any(info.compress_type not in METHODS for info in infos):
            raise BagFileError("`path` must be an archive without compression or with deflate, got another one")
        if "constants.pkl" in self._members:
            raise BagFileError("`path` must be written by torch.save, got a TorchScript archive")
        version = self._small(archive, ".data/version", self._small(archive, "version", b""))
        if not version.strip().isdigit() or int(version) not in VERSIONS:
            raise BagFileError(f"`path` must be an archive of a version that PyTorch reads, got {version!r}")
        int(self._small(archive, ".storage_alignment", b"64"))  # PyTorch refuses another text
        order = self._small(archive, "byteorder", b"little")
        if order not in BYTE_ORDERS:
            raise BagFileError(f"`path` must state 'little' or 'big' as byteorder, got {order!r}")
        self._swapped = BYTE_ORDERS[order] != sys.byteorder
        info = self._member("data.pkl")
        check_header_size(info.file_size, info.compress_size)
        unpickler = weights_only.Unpickler(io.BytesIO(archive.read(info)), encoding="utf-8")
        unpickler.persistent_load = self._storage  # type: ignore[method-assign]
        return unpickler.load()

    def is_compressed(self, value: Tensor) -> bool:
        """Return whether the values of a tensor are compressed, so that it may be larger than the file."""
        storage = self._storages.get(value.untyped_storage()._cdata)
        return storage is not None and storage.info.compress_type != zipfile.ZIP_STORED

    def rows(self, value: Tensor) -> Rows | Unreadable:
        """Return the rows of a strided tensor of :py:meth:`load`."""
        storage = self._storages.get(value.untyped_storage()._cdata)
        if storage is None:
            return Unreadable("a tensor without values", tuple(value.shape))
        info, itemsize = storage.info, value.element_size()
        steps = sum((n - 1) * step for n, step in zip(value.shape, value.stride(), strict=True))
        last = value.storage_offset() + steps + 1 if value.numel() else 0
        # a tensor that needs more than its storage has enlarged it
        if last * itemsize > info.file_size or value.untyped_storage().nbytes() != info.file_size:
            got = f"{info.file_size} bytes"
            raise BagFileError(f"`path` must hold the {tuple(value.shape)} values of its header, got {got}")
        if info.compress_type != zipfile.ZIP_STORED:
            check_header_size(info.file_size, info.compress_size)
        elif value.is_contiguous() and not self._swapped and not value.is_neg():
            start = member_start(self.file, info)
            first = start + int(value.storage_offset()) * itemsize
            member = Member(start, info.file_size, info.CRC)
            return MemberRows(
                self.file.fileno(), value.shape, RAW[value.dtype], first if value.numel() else start, member
            )
        warning = COMPRESSED if info.compress_type != zipfile.ZIP_STORED else ""
        return ArrayRows(lambda: self._read(value, storage), value.shape, value.dtype, warning)

    def _read(self, value: Tensor, storage: _Storage) -> Tensor:
        with open_archive(self.file) as archive:
            raw = np.frombuffer(bytearray(archive.read(storage.info.filename)), np.uint8)
        if self._swapped and storage.itemsize > 1:
            raw = raw.view(f"u{storage.itemsize}").byteswap().view(np.uint8)
        numbers = torch.from_numpy(raw[: len(raw) // value.element_size() * value.element_size()]).view(value.dtype)
        part = numbers.as_strided(value.shape, value.stride(), value.storage_offset() if value.numel() else 0)
        return part.neg() if value.is_neg() else part

    def _storage(self, saved_id: Any) -> torch.storage.TypedStorage:
        """Return the storage of a persistent ID ``("storage", type, key, location, size)``."""
        kind, storage_type, key, _, size = saved_id
        if kind not in ("storage", b"storage"):
            raise BagFileError(f"`path` must hold storages of tensors, got {kind!r}")
        if key not in self._loaded:
            dtype = torch.uint8 if storage_type is torch.UntypedStorage else storage_type.dtype
            itemsize = torch.empty(0, dtype=dtype, device="meta").element_size()
            info = self._member(f"data/{key}".lower())
            if size * itemsize != info.file_size:
                raise BagFileError(f"`path` must hold storages of {size * itemsize} bytes, got {info.file_size}")
            storage = torch.UntypedStorage(info.file_size, device="meta")
            typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=dtype, _internal=True)
            self._storages[storage._cdata] = _Storage(typed, info, itemsize // 2 if dtype.is_complex else itemsize)
            self._loaded[key] = typed
        return self._loaded[key]

    def _member(self, name: str) -> zipfile.ZipInfo:
        if name not in self._members:
            raise BagFileError(f"`path` must be a complete archive of PyTorch, got none with {name!r}")
        return self._members[name]

    def _small(self, archive: zipfile.ZipFile, name: str, default: bytes) -> bytes:
        info = self._members.get(name)
        if info is None:
            return default
        if info.file_size > 100:
            raise BagFileError(f"`path` must be an undamaged archive, got {info.file_size} bytes for {name!r}")
        return archive.read(info)
