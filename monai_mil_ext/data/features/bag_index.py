"""Index of a store of bag files: what unchanged files state, so that they are not opened again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from monai_mil_ext.utils import check_local, load_json
from monai_mil_ext.utils.files import atomic_path

__all__ = ["BagIndex"]

FORMAT = "bag index 1"
MAX_WRITES = 20_000  # new entries after which the index is written, so that an interrupted run is not lost
Entry = list[Any]  # size, time of modification in ns, what was checked, values


class BagIndex:
    """Index of a store of bag files, kept as one JSON file: size, time of modification and values of each bag file.

    A file that was changed since is not known. A file is named by a hash of its path relative to the index, so that
    the index shows no name and moves with its store. It is written when the context ends.

    Args:
        path: file of the index, such as ``index.json`` in the folder of the store; it is made if there is none. That of
            another version of this package is not used.

    Example:
        >>> _ = Path("a.h5").write_text("bag")
        >>> with BagIndex("index.json") as index:
        ...     index.add("a.h5", {"num_instances": 3}, ["features"])
        >>> with BagIndex("index.json") as index:
        ...     index.find("a.h5", ["features"]), index.find("a.h5", ["features", "coords"])
        ({'num_instances': 3}, None)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        check_local(index=path)
        self.path = Path(path)
        self._folder = os.path.realpath(self.path.parent)
        self._head = {"format": FORMAT, "version": _version()}
        self._entries: dict[str, Entry] = {}
        self._new = 0

    def __enter__(self) -> BagIndex:
        self._entries = self._read()
        return self

    def __exit__(self, *_: object) -> None:
        self._write()

    def _read(self) -> dict[str, Entry]:
        if not self.path.is_file():
            return {}
        try:
            content = load_json(self.path)
            head = {key: content.get(key) for key in self._head}
        except (ValueError, AttributeError):
            head = {}
        if head.get("format") != FORMAT:
            raise ValueError(f"`index` must be an index of bag files, got {self.path.name!r}, which is none.")
        return dict(content["files"]) if head == self._head else {}

    def _write(self) -> None:
        if self._new:
            with atomic_path(self.path) as temporary:
                temporary.write_text(json.dumps({**self._head, "files": self._entries}), encoding="utf-8")
            self._new = 0

    def _key(self, path: str | os.PathLike[str]) -> str:
        text = os.path.abspath(path)
        inside = text.startswith(self._folder + os.sep)  # as nearly all are, and `relpath` takes long
        relative = text[len(self._folder) + 1 :] if inside else os.path.relpath(text, self._folder)
        return hashlib.blake2b(relative.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()

    def find(self, path: str | os.PathLike[str], checked: list[str]) -> dict[str, Any] | None:
        """Return the values of a file that has not changed, or ``None`` if they are not known.

        Args:
            path: the file.
            checked: names of what must have been checked in the file.
        """
        entry = self._entries.get(self._key(path))
        if entry is None or not set(checked) <= set(entry[2]):
            return None
        state = os.stat(path)
        return dict(entry[3]) if entry[:2] == [state.st_size, state.st_mtime_ns] else None

    def add(self, path: str | os.PathLike[str], values: Mapping[str, Any], checked: list[str]) -> None:
        """Add a file with its values, and the names of what was checked in it.

        A folder, such as a zarr store, is not added: its time of modification does not show that of its content.
        """
        if not os.path.isfile(path):
            return
        state = os.stat(path)
        self._entries[self._key(path)] = [state.st_size, state.st_mtime_ns, checked, dict(values)]
        self._new += 1
        if self._new >= MAX_WRITES:
            self._write()


def _version() -> str:
    try:
        return version("monai-mil-ext")
    except PackageNotFoundError:  # of a source tree
        return "unknown"
