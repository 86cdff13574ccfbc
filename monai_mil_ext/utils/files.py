"""Atomic writing of files, so that no reader ever sees a partial file."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["atomic_path", "remove_stale_files", "write_csv", "write_json"]

PREFIX = ".writing-"
FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``, renamed to ``path`` on success and removed on an error.

    Several processes may write the same path: each has its own temporary file, and the last one to finish wins. The
    file and its folder are synchronized to disk. A killed process leaves its hidden temporary file behind, which no
    reader mistakes for a result; :py:func:`remove_stale_files` removes it.

    Args:
        path: file to create or replace; a missing folder is created. The temporary name keeps the suffixes, for
            writers that depend on them (``.nii.gz``).

    Raises:
        OSError: when the disk is full or a quota or size limit is reached; the message names the file.

    Example:
        >>> with atomic_path("results/result.json") as temporary:
        ...     _ = temporary.write_text("{}")
        >>> os.listdir("results")
        ['result.json']
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _errors_if_full(target.name):
        handle, name = tempfile.mkstemp(prefix=PREFIX, suffix="".join(target.suffixes[-2:]), dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(target.parent)


def remove_stale_files(folder: str | os.PathLike[str], seconds: float = 86_400) -> list[str]:
    """Remove temporary files of killed writers: those that have not changed for the given time.

    Args:
        folder: folder to clean; it may be missing, and sub-folders are not searched.
        seconds: age from which a file is stale; one day by default, since a file being written changes far more often.

    Returns:
        Names of the removed files.
    """
    removed = []
    for file in sorted(Path(folder).glob(f"{PREFIX}*")):
        try:
            if file.is_file() and time.time() - file.stat().st_mtime > seconds:
                file.unlink()
                removed.append(file.name)
        except FileNotFoundError:  # another process removed it first
            continue
    return removed


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
    names = list(dict.fromkeys(name for row in (longest, *lines) for name in row)) if columns is None else columns
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=names)
        writer.writeheader()
        writer.writerows({name: _plain(cell) for name, cell in row.items()} for row in lines)


def _plain(cell: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula."""
    if not isinstance(cell, str) or not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
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
def _errors_if_full(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # HDF5 raises both, with the error number only in its text
        codes = [getattr(error, "errno", None), *map(int, re.findall(r"errno = (\d+)", str(error)))]
        code = next((code for code in codes if code in FULL), None)
        if code is None:
            raise
        message = f"`path` must lie on a disk with room for it, got {os.strerror(code)} for {name!r}"
        raise OSError(code, message) from None  # so that this message is the root cause, not the text of HDF5


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
