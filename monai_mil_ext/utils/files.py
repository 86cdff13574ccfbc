"""Writing files so that nobody ever reads half of one."""

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
    """Give a temporary path beside ``path`` to write to; on success it becomes ``path``, on an error it is removed.

    Several processes may write one path: each has a temporary file of its own, and the last one stays, whole. The file
    and its folder are synchronised with the disk. A process that is killed leaves its temporary file, a hidden one,
    which no reader takes for a result; :py:func:`remove_stale_files` removes it.

    Args:
        path: the file to make or replace; its folder is made where it is missing. The temporary name keeps the
            suffixes, so that writers that go by them (``.nii.gz``) work.

    Raises:
        OSError: when the disk, a quota or a limit is full; the file is named.

    Example:
        >>> with atomic_path("results/result.json") as temporary:
        ...     _ = temporary.write_text("{}")
        >>> os.listdir("results")
        ['result.json']
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _named_if_full(target.name):
        handle, name = tempfile.mkstemp(prefix=PREFIX, suffix="".join(target.suffixes[-2:]), dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(target.parent)


def remove_stale_files(folder: str | os.PathLike[str], seconds: float = 86_400) -> list[str]:
    """Remove temporary files of writers that died: those that nobody has written to for so long.

    Args:
        folder: it need not exist, and its sub-folders are left alone.
        seconds: a day by default; a file that is being written changes far more often.

    Returns:
        Names of the removed files.
    """
    removed = []
    for file in sorted(Path(folder).glob(f"{PREFIX}*")):
        try:
            if file.is_file() and time.time() - file.stat().st_mtime > seconds:
                file.unlink()
                removed.append(file.name)
        except FileNotFoundError:  # another process was faster
            continue
    return removed


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write JSON as a whole or not at all; NaN and infinity, which JSON does not know, become null."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(_finite(content), indent=2) + "\n")


def write_csv(
    path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None
) -> None:
    """Write a CSV file with a header, atomically; a cell that a row lacks stays empty.

    Args:
        path: file to make or replace.
        rows: one dictionary a line.
        columns: header; by default the keys of the row that has most of them.

    Raises:
        ValueError: when a row has a key that is no column.

    Example:
        >>> write_csv("bags.csv", [{"case_id": "a", "label": 1}, {"case_id": "b"}])
        >>> Path("bags.csv").read_text().split()
        ['case_id,label', 'a,1', 'b,']
    """
    lines = list(rows)
    names = max(map(list, lines), key=len, default=[]) if columns is None else columns
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=names)
        writer.writeheader()
        writer.writerows(lines)


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


@contextmanager
def _named_if_full(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # HDF5 raises both, and has the number in its text only
        numbers = [getattr(error, "errno", None), *map(int, re.findall(r"errno = (\d+)", str(error)))]
        full = next((number for number in numbers if number in FULL), None)
        if full is None:
            raise
        text = f"`path` must lie on a disk with room for it, got {os.strerror(full)} for {name!r}"
        raise OSError(full, text) from None  # so that this, and not HDF5's text, is the root cause


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
