"""Bounded cache of objects on this machine, for readers that need a file: slides, scans, weights and archives."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from .object_path import ObjectPath, is_remote
from .store import open_store, store_errors

__all__ = ["local_copy"]

FOLDER, SIZE = "MONAI_MIL_CACHE", "MONAI_MIL_CACHE_GB"
DEFAULT_GB = 20.0
LOCK = ".lock"


@contextmanager
def local_copy(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a file or folder on this machine with the content of an object or prefix; a local path is yielded as it is.

    Copies lie in the folder of the variable ``MONAI_MIL_CACHE``, by default in ``~/.cache/monai_mil_ext``, under hashes
    for names. They need at most ``MONAI_MIL_CACHE_GB`` (20): those that were not used for the longest time are removed,
    but none that a process has open. An object that was replaced in the store is fetched again.

    Raises:
        FileNotFoundError: when there is no such object.
        StoreError: when the store refuses or does not answer.
        ValueError: when the object is larger than the cache.

    Example:
        >>> _ = ObjectPath("memory://bucket/a.txt").write_bytes(b"text")
        >>> with local_copy("memory://bucket/a.txt") as file:
        ...     file.read_text(), file.suffix
        ('text', '.txt')
    """
    if not is_remote(path):
        yield Path(path)
        return
    source = ObjectPath(path)
    folder = _cache_folder()
    key = hashlib.sha256(f"{source}\n{source.version()}".encode()).hexdigest()[:32]
    with (folder / (key + LOCK)).open("a+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # of a process that was killed, the system releases it
        os.utime(lock.fileno())
        entry = folder / key
        if not entry.exists():
            _fetch(source, entry)
        yield next(entry.iterdir())


def _fetch(source: ObjectPath, entry: Path) -> None:
    sizes = source.sizes() if source.is_dir() else {source: source.stat().st_size}
    total, limit = sum(sizes.values()), _limit()
    if total > limit:
        raise ValueError(
            f"`path` must fit into the cache of {limit / 1e9:g} GB, got {total / 1e9:.1f} GB in {source.name!r}: "
            f"set {SIZE}."
        )
    _make_room(entry.parent, limit - total)
    suffix = "".join(source.suffixes[-2:])[-32:]
    with tempfile.TemporaryDirectory(dir=entry.parent, prefix=".writing-") as temporary:
        copy = Path(temporary, "copy") / f"{entry.name}{suffix}"
        copy.parent.mkdir()
        for place in sizes:
            target = copy if place == source else copy / place.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            store, key = open_store(str(place))
            with store_errors(place.name):
                store.get_file(key, str(target))
        with suppress(OSError):  # another process was faster, whose copy is the same
            copy.parent.rename(entry)


def _make_room(folder: Path, allowed: float) -> None:
    """Remove the copies that were used last the longest time ago until the others need the allowed bytes."""
    entries = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    sizes = {path: sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) for path in entries}
    total = sum(sizes.values())
    for path in sorted(entries, key=_last_use):
        if total <= allowed:
            return
        with (folder / (path.name + LOCK)).open("a+b") as lock:
            if _is_free(lock):
                shutil.rmtree(path, ignore_errors=True)
                total -= sizes[path]


def _last_use(entry: Path) -> float:
    try:
        return entry.with_name(entry.name + LOCK).stat().st_mtime
    except OSError:
        return 0.0


def _is_free(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(os.environ.get(FOLDER) or f"{base}/monai_mil_ext").expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _limit() -> float:
    text = os.environ.get(SIZE, str(DEFAULT_GB))
    try:
        return float(text) * 1e9
    except ValueError:
        raise ValueError(f"`{SIZE}` must be a number of gigabytes, got {text!r}.") from None
