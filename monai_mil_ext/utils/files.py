"""Atomic writing of files, so that no reader ever sees a partial file."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import re
import socket
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from .paths import check_local
from .remote import as_path, is_remote, isfile, local_copy
from .remote.object_path import ObjectPath
from .remote.store import StoreError

__all__ = [
    "atomic_path",
    "load_json",
    "load_tensors",
    "remove_file",
    "remove_stale_files",
    "save_tensors",
    "write_csv",
    "write_json",
]

PREFIX = ".writing-"
FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
DISK = (errno.EROFS, errno.EIO)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``, renamed to ``path`` on success and removed on an error.

    Several processes may write the same path: each has its own temporary file, and the last one to finish wins. The
    file and its folder are synchronized to disk. A killed process leaves its hidden temporary file behind, which no
    reader mistakes for a result; :py:func:`remove_stale_files` removes it.

    For an address of an object store the temporary file lies on this machine and is uploaded as a whole.

    Args:
        path: file to create or replace; a missing folder is created. The temporary name keeps the suffixes, for
            writers that depend on them (``.nii.gz``).

    Raises:
        OSError: when the disk is full or read-only, a quota or size limit is reached, or the file can't be written for
            another reason; the message names the file without its folder.
        StoreError: when an object store refuses or does not answer.
        ValueError: when the path is another address, such as ``ftp://host/x``.

    Example:
        >>> with atomic_path("results/result.json") as temporary:
        ...     _ = temporary.write_text("{}")
        >>> os.listdir("results")
        ['result.json']
    """
    if is_remote(path):
        with ObjectPath(path).atomic() as temporary:
            yield temporary
        return
    check_local(path=path)
    target = Path(path)
    with _named_errors(target.name):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _create(target)
    try:
        with _named_errors(target.name, temporary):
            yield temporary
        with _named_errors(target.name):
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(target)
            _sync_folder(target.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_stale_files(folder: str | os.PathLike[str], seconds: float = 86_400) -> list[str]:
    """Remove temporary files of killed writers: those that have not changed for the given time.

    The age is that by the clock of the disk. A file whose writer is a running process of this machine is kept.

    Args:
        folder: folder to clean; it may be missing, and sub-folders are not searched.
        seconds: age from which a file is stale; one day by default, since a file being written changes far more often.

    Returns:
        Names of the removed files.
    """
    if is_remote(folder):  # where nothing unfinished is visible
        return []
    files = [file for file in sorted(Path(folder).glob(f"{PREFIX}*")) if not _has_writer(file.name)]
    removed = []
    for file in files:
        with suppress(OSError):  # another process removed it first, or the disk is read-only
            if file.is_file() and _clock(folder) - file.stat().st_mtime > seconds:
                file.unlink()
                removed.append(file.name)
    return removed


def remove_file(path: str | os.PathLike[str]) -> None:
    """Remove a file, which need not exist.

    Raises:
        OSError: with the message of :py:func:`atomic_path`.
    """
    target = as_path(path)
    with _named_errors(target.name):
        target.unlink(missing_ok=True)


def load_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file in UTF-8, with or without a byte order mark.

    Raises:
        ValueError: when the file can't be read, is not JSON or is nested too deeply; the message names it.
    """
    file = as_path(path)
    if not is_remote(file):
        check_local(path=file)
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except StoreError:
        raise
    except (OSError, RecursionError, ValueError):
        raise ValueError(f"`path` must be a readable JSON file, got {file.name!r}.") from None


def save_tensors(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write a file by ``torch.save`` atomically.

    Raises:
        OSError: see :py:func:`atomic_path`; of a file that it opens itself, PyTorch hides this error.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.save(content, file)


def load_tensors(path: str | os.PathLike[str], map_location: Any = "cpu") -> Any:
    """Read a file of weights that ``torch.save`` wrote, without pickle.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it can't be read safely.
    """
    file = as_path(path)
    if not is_remote(file):
        check_local(path=file)
    if not isfile(file):
        raise FileNotFoundError(f"`path` must be a file of weights that exists, got {file.name!r}.")
    try:
        with local_copy(file) as local:
            return torch.load(local, map_location=map_location, weights_only=True)
    except StoreError:
        raise
    except Exception as error:
        kind = type(error).__name__
        raise ValueError(f"`path` must be an undamaged file of weights, got {file.name!r}: {kind}.") from None


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically; NaN and infinity, which JSON does not allow, become null."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(_finite(content), indent=2) + "\n")


def write_csv(
    path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None
) -> None:
    """Write a CSV file with a header, atomically; missing cells stay empty.

    Text that a spreadsheet would run as a formula (``=``, ``+``, ``-``, ``@``, a tab or a line break at its start)
    gets an apostrophe in front, unless it is a number.

    Args:
        path: file to create or replace.
        rows: one dictionary per line.
        columns: header; by default the keys of all rows, those of the row with the most keys first.

    Raises:
        ValueError: when a row has a key that is not a column.

    Example:
        >>> write_csv("bags.csv", [{"case_id": "a", "label": 1}, {"case_id": "b"}])
        >>> Path("bags.csv").read_text().split()
        ['case_id,label', 'a,1', 'b,']
    """
    lines = list(rows)
    longest: Mapping[str, Any] = max(lines, key=len, default={})
    kinds = dict.fromkeys(map(tuple, (longest, *lines)))  # of rows: a table of a million rows has one or two
    found = list(dict.fromkeys(name for names in kinds for name in names))
    names = found if columns is None else columns
    unknown = [name for name in found if name not in names]
    if unknown:
        raise ValueError(f"`rows` must have no keys but {list(names)}, got {unknown}.")
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        # a list, since a row with a single empty cell is written as such
        writer.writerows(
            [_plain(cell) if isinstance(cell, str) else cell for cell in map(row.get, names)] for row in lines
        )


@lru_cache(4096)  # most text of a table repeats
def _plain(cell: str) -> str:
    """Return text that no spreadsheet takes for a formula."""
    if not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


@contextmanager
def _named_errors(name: str, temporary: Path | None = None) -> Iterator[None]:
    """Convert errors of writing to one form; with ``temporary``, only those that concern this file or its disk."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # HDF5 raises both, with the error number only in its text
        for cause in _causes(error):
            codes = [getattr(cause, "errno", None), *map(int, re.findall(r"errno = (\d+)", str(cause)))]
            code = next((code for code in codes if code), None)
            if code in FULL:
                message = f"`path` must lie on a disk with room for it, got {os.strerror(code)} for {name!r}"
            elif code in DISK or (code and (temporary is None or temporary.name in str(cause))):
                message = f"`path` must be a file that can be written, got {os.strerror(code)} for {name!r}"
            else:
                continue
            raise OSError(code, message) from None  # so that this message is the root cause, not the text of HDF5
        raise


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _create(target: Path) -> Path:
    writer = _process(os.getpid())
    handle, name = tempfile.mkstemp(
        prefix=f"{PREFIX}{writer}-" if writer else PREFIX, suffix="".join(target.suffixes[-2:])[-32:], dir=target.parent
    )
    os.close(handle)
    return Path(name)


def _process(pid: int | str) -> str:
    """Return a name of a running process that no other has, now or later; empty if there is none."""
    try:
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        return ""
    return f"{pid}-{zlib.crc32(f'{socket.gethostname()} {boot} {started}'.encode()):08x}"


def _has_writer(name: str) -> bool:
    writer = re.match(rf"{re.escape(PREFIX)}((\d+)-[0-9a-f]{{8}})-", name)
    return writer is not None and _process(writer[2]) == writer[1]


def _clock(folder: str | os.PathLike[str]) -> float:
    """Return the time by the clock of the disk, which may be that of another machine."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_mtime


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
