"""Identity of input files: a hash by which a result of an earlier run is known to belong to the same input."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from monai_mil_ext.utils import BagKeys
from monai_mil_ext.utils.remote import ObjectPath, as_path, is_remote

from .fingerprints import fingerprint

__all__ = ["content_identity", "input_identity", "item_identity"]

BLOCK = 16_384  # bytes
SPACED = 16  # blocks between head and tail
Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
# formats whose files refer to others with the same stem, such as an .mhd to its .raw and an .mrxs to its folder
WITH_COMPANIONS = (".mhd", ".nhdr", ".hdr", ".img", ".mrxs", ".vms", ".vmu")
# values of an item that affect how its files are read
NUMBERS = {str(BagKeys.SLIDE_MPP), "magnification"}
READ_OPTIONS = {str(BagKeys.SERIES), str(BagKeys.STACK), str(BagKeys.PICTURES_MISSING), "slide", *NUMBERS}
NAMES = {str(BagKeys.CASE_ID), str(BagKeys.PATIENT)}


def input_identity(path: Paths) -> str:
    """Compute the SHA-256, in hexadecimal, by which a file, a folder or a list of them differs from another.

    Of a file, it covers size, modification time in nanoseconds, and 18 blocks of 16 KiB: the first, the last and 16
    evenly spaced ones between them, so files up to 288 KiB are read as a whole. It does not cover the file's own name.
    A header that refers to other files, such as ``.mhd``, ``.hdr`` or ``.mrxs``, counts with all files of its stem.
    Of a folder, such as a DICOM series or a zarr store, it covers the relative name and the identity of every file in
    it, whatever the order in which the file system lists them. Of a list, such as the slides of a patient, it covers
    the identity of each entry, in the order of the list.

    Of an object in a store, it covers the version that the store states, with its address.

    A change between the blocks is not noticed if size and modification time are both as before. A copy with another
    modification time counts as another input.

    Args:
        path: file or folder, or a list of them.

    Raises:
        OSError: when a file does not exist or can't be read.

    Example:
        >>> _ = Path("scan.raw").write_bytes(bytes(100))
        >>> before = input_identity("scan.raw")
        >>> before == input_identity("scan.raw")
        True
        >>> _ = Path("scan.raw").write_bytes(bytes(99) + b"x")
        >>> before == input_identity("scan.raw")
        False
    """
    if not isinstance(path, (str, os.PathLike)):
        return fingerprint([input_identity(entry) for entry in path])
    source = as_path(path)
    if isinstance(source, ObjectPath):
        return fingerprint([str(source), source.version()])
    if source.suffix.lower() in WITH_COMPANIONS:
        return fingerprint({_identity(file) for file in [source, *_companions(source)]})
    return _identity(source)


def content_identity(path: str | os.PathLike[str]) -> str:
    """Compute the SHA-256, in hexadecimal, that a file or folder shares with its copies.

    It covers what :py:func:`input_identity` does, without modification times and other files of the same stem; of an
    object in a store, it covers the checksum that the store states.

    Raises:
        OSError: when the file does not exist or can't be read.

    Example:
        >>> for name in ("scan.raw", "copy.raw"):
        ...     _ = Path(name).write_bytes(bytes(100))
        >>> content_identity("scan.raw") == content_identity("copy.raw")
        True
    """
    return fingerprint(ObjectPath(path).checksum()) if is_remote(path) else _identity(Path(path), with_time=False)


def item_identity(item: Mapping[str, Any], keys: Sequence[str] = ("image",)) -> str | None:
    """Compute the identity of everything that is read for an item: its files and the options of reading them.

    It covers each value that is a path, or a list of paths, on this disk, such as ``image``, ``reference`` and
    ``source``; further the values of ``keys``, ``series``, ``stack``, ``slide``, ``slide_mpp``, ``magnification`` and
    ``pictures_missing``; all values if the first of ``keys`` is absent. It does not cover case ID and patient.

    Args:
        item: data dictionary before loading.
        keys: keys whose values always count; the first is that of the scan, slide or bag.

    Returns:
        SHA-256 in hexadecimal, or None if there is no such value, or a file does not exist or can't be read, so that no
        earlier result can be known to belong to it.

    Example:
        >>> item_identity({"case_id": "a", "image": 1.0}) == item_identity({"case_id": "b", "image": 1.0})
        True
        >>> item_identity({"image": 1.0}) == item_identity({"image": 1.0, "series": "2"})
        False
    """
    values = {str(key): value for key, value in item.items() if str(key) not in NAMES}
    counted = {*keys, *READ_OPTIONS} if keys[0] in values else set(values)
    if not values or _is_absent(values.get(keys[0])):
        return None
    try:
        parts = {
            key: ("path", input_identity(value)) if _exists(value) else ("value", fingerprint(_number(key, value)))
            for key, value in values.items()
            if key in counted or _exists(value)
        }
    except (OSError, TypeError):
        return None
    return fingerprint(parts)


def _identity(path: Path, with_time: bool = True) -> str:
    if path.is_dir():
        names = {os.fsencode(file.relative_to(path)): _file_identity(file, with_time) for file in _files(path)}
        return fingerprint(names)
    return _file_identity(path, with_time)


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and its sub-folders; a broken link or a pipe is none that a reader would open."""
    for place, _, names in os.walk(folder, onerror=_raise):
        yield from (file for file in (Path(place) / name for name in names) if file.is_file())


def _raise(error: OSError) -> None:
    raise error


def _companions(header: Path) -> list[Path]:
    """Return the other files, and the folder, with the stem of a header."""
    length = len(header.stem)
    related = (file for file in header.parent.iterdir() if file.name[:length] == header.stem)
    return [file for file in related if file.name != header.name and not file.name[length : length + 1].isalnum()]


def _file_identity(path: Path, with_time: bool = True) -> str:
    if not path.is_file():
        raise FileNotFoundError("`path` must be a file or a folder that exists, got none.")
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        time = status.st_mtime_ns if with_time else ""
        total = hashlib.sha256(f"{status.st_size} {time} ".encode())
        for start in _starts(status.st_size):
            file.seek(start)
            total.update(file.read(BLOCK))
    return total.hexdigest()


def _starts(size: int) -> list[int]:
    """Return where the blocks of a file begin; together they cover a small file."""
    count = SPACED + 2
    last = size - BLOCK
    if size <= count * BLOCK:
        return list(range(0, max(size, 1), BLOCK))
    return [last * block // (count - 1) for block in range(count)]


def _exists(value: Any) -> bool:
    """Return whether a value is the path of a file or folder, or a list of such paths."""
    if isinstance(value, (str, os.PathLike)):
        path = os.fspath(value)
        return bool(path) and "\0" not in path and (is_remote(path) or os.path.lexists(path))
    return isinstance(value, (list, tuple)) and bool(value) and all(map(_exists, value))


def _number(key: str, value: Any) -> Any:
    """Return a resolution as a number, so that 0.5 of a table is 0.50; anything else unchanged."""
    if key in NUMBERS:
        with suppress(TypeError, ValueError):
            return float(value)
    return value


def _is_absent(value: Any) -> bool:
    """Return whether a value has the form of a path, or of a list of paths, but is none."""
    if isinstance(value, (list, tuple)):
        return any(map(_is_absent, value))
    is_path = isinstance(value, (str, os.PathLike)) and (os.sep in os.fspath(value) or not os.fspath(value))
    return is_path and not _exists(value)
