"""Scans in zip archives, unpacked into a temporary folder."""

from __future__ import annotations

import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from monai_mil_ext.utils import InputError
from monai_mil_ext.utils.archives import ArchiveError, open_archive

from .dicom_files import has_preamble

__all__ = ["is_zip", "unpacked_scan"]

MAX_BYTES = 16 * 2**30  # of all members, unpacked
MAX_MEMBERS = 100_000
BLOCK = 2**20
MAGIC = b"PK\x03\x04"
VOLUMES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".nhdr", ".hdr", ".img")
HEADER = 2**20  # bytes within which the header of a volume ends
LOCAL = re.compile(rb"[ \t]*=[ \t]*LOCAL[ \t\r]*\n")  # of MetaImage
OTHER = re.compile(rb"(?im)^\s*data\s?file\s*:")  # of NRRD
SYSTEM = ("__MACOSX", "Thumbs.db", "desktop.ini")


def is_zip(path: Path) -> bool:
    """Return whether a file begins like a zip archive."""
    with path.open("rb") as file:
        return file.read(4) == MAGIC


@contextmanager
def unpacked_scan(path: Path, max_bytes: int = MAX_BYTES, max_members: int = MAX_MEMBERS) -> Iterator[Path]:
    """Yield the only volume (NIfTI, NRRD, MetaImage) of a zip archive, or else a folder with all of its files.

    The files are in a temporary folder, which is removed afterwards, under other names than those in the archive.
    Hidden files are left out.

    Args:
        path: the archive.
        max_bytes: largest size of all files together, unpacked.
        max_members: largest number of files.

    Raises:
        InputError: when the archive is damaged, encrypted, too large or has several volumes, or when it contains links,
            archives, or names that lead out of its folder.
    """
    folder = Path(tempfile.mkdtemp(prefix="scan-"))
    try:
        yield _unpack(path, folder, max_bytes, max_members)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unpack(path: Path, folder: Path, max_bytes: int, max_members: int) -> Path:
    try:
        with open_archive(path) as archive:
            members = _checked(archive.infolist(), max_members)
            files, left = [], max_bytes
            for number, member in enumerate(members):
                target = folder / f"{number:06d}{_suffix(member.filename)}"
                left -= _extract(archive, member, target, left)
                if left < 0:
                    size = f"{max_bytes / 2**30:.3g} GiB"
                    raise InputError(f"`image` must be a zip archive of at most {size} unpacked, got more.")
                files.append(target)
    except InputError:
        raise
    except ArchiveError as error:
        raise InputError(f"{str(error).replace('`path`', '`image`')}.") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno:  # a full disk is no fault of the archive
            raise
        raise InputError("`image` must be a readable, undamaged scan, got a damaged zip archive.") from None
    return _scan(files, folder)


def _checked(members: Sequence[zipfile.ZipInfo], max_members: int) -> list[zipfile.ZipInfo]:
    """Return the members that are files; raise if one leads out of the folder, is a link or an archive."""
    if len(members) > max_members:
        raise InputError(f"`image` must be a zip archive of at most {max_members} files, got {len(members)}.")
    for member in members:
        parts = PurePosixPath(member.filename.replace("\\", "/")).parts
        if ".." in parts or member.filename.startswith(("/", "\\")) or re.match("[A-Za-z]:", member.filename):
            raise InputError(
                "`image` must be a zip archive with names inside its folder, got one that leads out of it."
            )
        if stat.S_ISLNK(member.external_attr >> 16):
            raise InputError("`image` must be a zip archive without links, got one with a link.")
    files = [member for member in members if not member.is_dir() and not _is_hidden(member.filename)]
    if not files:
        raise InputError("`image` must be a zip archive with a scan, got one without files.")
    return files


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part in SYSTEM for part in PurePosixPath(name).parts)


def _suffix(name: str) -> str:
    """Return the suffix of a volume in small letters, or a short one of letters and digits."""
    lower = name.lower()
    known = next((suffix for suffix in VOLUMES if lower.endswith(suffix)), "")
    other = PurePosixPath(lower).suffix
    return ".nii.gz" if lower.endswith(".nii.gz") else known or (other if re.fullmatch(r"\.\w{1,8}", other) else "")


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, left: int) -> int:
    """Write a member, at most ``left`` bytes, and return its size, which the archive may state wrongly."""
    size = 0
    with archive.open(member) as source, target.open("wb") as file:
        while block := source.read(BLOCK):
            if not size and block.startswith(MAGIC):
                raise InputError("`image` must be a zip archive of files, got one with another archive in it.")
            size += len(block)
            if size > left:
                break
            file.write(block)
    return size


def _scan(files: Sequence[Path], folder: Path) -> Path:
    volumes = [file for file in files if file.name.endswith(VOLUMES)]
    if not volumes:
        return folder
    if len(volumes) > 1 or any(map(has_preamble, files)):
        got = f"{len(volumes)} volume{'s'[: len(volumes) > 1]} and {len(files) - len(volumes)} other files"
        raise InputError(f"`image` must be a zip archive with one scan, got {got}.")
    if not _has_its_voxels(volumes[0]):
        raise InputError("`image` must be a volume with its voxels in the same file, got a header that names others.")
    return volumes[0]


def _has_its_voxels(volume: Path) -> bool:
    """Return whether the header of a volume names no other file, which might be any file of this machine."""
    with volume.open("rb") as file:
        begin = file.read(HEADER)
    if volume.suffix in (".mha", ".mhd"):
        return bool(LOCAL.match(begin.partition(b"ElementDataFile")[2]))
    if volume.suffix in (".nrrd", ".nhdr"):
        header, end, _ = begin.replace(b"\r\n", b"\n").partition(b"\n\n")
        return bool(end) and not OTHER.search(header)
    return True
