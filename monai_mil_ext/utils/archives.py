"""Zip archives that are opened for reading, with checks that Python's zipfile leaves to its users."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

__all__ = ["ArchiveError", "damaged_member", "member_start", "open_archive"]

LOCAL_HEADER = struct.Struct("<4s2xHH16xHH")
ENCRYPTED = 1


class ArchiveError(ValueError):
    """Error of a zip archive in a form that no program writes for data."""


@contextmanager
def open_archive(file: str | os.PathLike[str] | BinaryIO) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive for reading; a member whose checksum is 0 has none.

    PyTorch writes 0 for every member if ``torch.serialization.set_crc32_options(False)`` was called.

    Raises:
        ArchiveError: when the archive does not begin with a member, has two members of one name, or is encrypted.
        zipfile.BadZipFile: when the file is no zip archive.
    """
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(set(archive.namelist())) < len(members):
            raise ArchiveError("`path` must be an archive with one member of each name, got several")
        if members and 0 not in {info.header_offset for info in members}:
            raise ArchiveError("`path` must be an archive that begins with its first member, got other bytes before")
        for info in members:
            if info.flag_bits & ENCRYPTED:
                raise ArchiveError("`path` must be an archive without a password, got an encrypted member")
            if not info.CRC:
                info.CRC = None  # type: ignore[assignment]  # zipfile compares no checksum then
        yield archive


def damaged_member(path: str | os.PathLike[str]) -> str | None:
    """Return the name of the first member of a zip archive whose bytes do not match its checksum, or ``None``."""
    with open_archive(path) as archive:
        return archive.testzip()


def member_start(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Return the offset of the data of an uncompressed member.

    Raises:
        ArchiveError: when the member is not where the directory of the archive says, or reaches beyond the file.
    """
    head = os.pread(file.fileno(), LOCAL_HEADER.size, info.header_offset)
    start = info.header_offset + LOCAL_HEADER.size
    if len(head) == LOCAL_HEADER.size:
        signature, flags, method, name_length, extra_length = LOCAL_HEADER.unpack(head)
        name = os.pread(file.fileno(), name_length, start)
        start += name_length + extra_length
        same = (signature, method, name) == (b"PK\x03\x04", info.compress_type, _raw_name(info))
        if same and not flags & ENCRYPTED and start + info.file_size <= os.fstat(file.fileno()).st_size:
            return int(start)
    raise ArchiveError("`path` must be an undamaged archive, got members that are not at the offsets of its directory")


def _raw_name(info: zipfile.ZipInfo) -> bytes:
    return info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437")
