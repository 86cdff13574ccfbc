"""Folder on this machine for work that an object store can't hold until it is finished."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any, NamedTuple

from .object_path import ObjectPath, is_remote
from .store import open_store, store_errors
from .upload import files_to_send

__all__ = ["WorkFolder"]


class _Sent(NamedTuple):
    """State of a file when it was uploaded or fetched."""

    size: int
    time_ns: int
    sha256: str


class WorkFolder:
    """Folder on this machine in which files are locked, renamed and continued, and its place in an object store.

    A local folder is used as it is. Of an address, all objects are fetched to a private temporary folder, and
    :py:meth:`push` uploads what has changed there, each file as a whole object, records last (``run.json``,
    ``model.json``, ``report.html``), and then removes the objects of files that were removed. The temporary folder is
    removed with this object.

    Args:
        folder: a local folder, or an address of an object store.
        fetch: whether to fetch the objects that are there, to continue from them.

    Raises:
        StoreError: when the store refuses or does not answer.
        ValueError: when an object has a name that leads out of the folder.

    Example:
        >>> work = WorkFolder("memory://bucket/study")
        >>> _ = (work.path / "a.txt").write_text("1")
        >>> work.push(), work.push(), ObjectPath("memory://bucket/study/a.txt").read_text()
        (1, 0, '1')
        >>> again, local = WorkFolder("memory://bucket/study"), WorkFolder("study")
        >>> (again.path / "a.txt").read_text(), str(local.path)
        ('1', 'study')
    """

    def __init__(self, folder: str | os.PathLike[str], fetch: bool = True) -> None:
        self.address = ObjectPath(folder) if is_remote(folder) else None
        self._sent: dict[str, _Sent] = {}
        if self.address is None:
            self.path = Path(folder)
            return
        self.path = Path(tempfile.mkdtemp(prefix="work-"))
        self._remove_at_end()
        if self.address.exists() and fetch:
            self.pull()

    def __getstate__(self) -> dict[str, Any]:
        return dict(vars(self))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Continue in another process: in the same folder, or in one of this name on another machine."""
        vars(self).update(state)
        if self.address is not None and not self.path.exists():
            self.path.mkdir(parents=True)
            self._remove_at_end()

    def place(self, path: Path) -> Path:
        """Return the final place of a file of this folder: its address, if the folder has one."""
        return path if self.address is None else self.address / path.relative_to(self.path)

    def pull(self, part: str | os.PathLike[str] = ".") -> int:
        """Fetch the objects of a sub-folder, which replace its files, and return their number.

        Raises:
            StoreError: when the store refuses or does not answer.
            ValueError: when an object has a name that leads out of the folder.
        """
        if self.address is None:
            return 0
        source = self.address / part
        objects = [*source.sizes()] if source.exists() else []
        names = [path.relative_to(self.address) for path in objects]
        if any(".." in name.parts for name in names):
            raise ValueError("`folder` must have objects with names inside of it, got one with '..'.")
        for name in names:
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        if objects:
            store, _ = open_store(str(self.address))
            keys = [open_store(str(path))[1] for path in objects]
            with store_errors(self.address.name):
                store.get(keys, [str(self.path / name) for name in names])
        self.note_sent(part)
        return len(objects)

    def push(self, part: str | os.PathLike[str] = ".") -> int:
        """Upload the files of a sub-folder that are new or have changed, and return their number.

        Raises:
            StoreError: when the store refuses or does not answer; whole files have arrived, and the next call goes on.
        """
        if self.address is None:
            return 0
        number = 0
        for file in files_to_send(self.path / part):
            name, state = self._name(file), self._state(file)
            known = self._sent.get(name)
            if known is None or known.sha256 != state.sha256:
                (self.address / name).upload(file)
                number += 1
            self._sent[name] = state
        for name in [
            name for name in self._sent if Path(name).is_relative_to(part) and not (self.path / name).exists()
        ]:
            (self.address / name).unlink(missing_ok=True)
            del self._sent[name]
        return number

    def note_sent(self, part: str | os.PathLike[str] = ".") -> None:
        """Note that the files of a sub-folder are in the store, which another process has uploaded."""
        if self.address is not None:
            self._sent |= {self._name(file): self._state(file) for file in files_to_send(self.path / part)}

    def _name(self, file: Path) -> str:
        return str(file.relative_to(self.path))

    def _state(self, file: Path) -> _Sent:
        """Return the state of a file; its content is read only if size or time differ from those that are known."""
        stat, known = file.stat(), self._sent.get(self._name(file))
        if known is not None and (known.size, known.time_ns) == (stat.st_size, stat.st_mtime_ns):
            return known
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        return _Sent(stat.st_size, stat.st_mtime_ns, digest)

    def _remove_at_end(self) -> None:
        weakref.finalize(self, _remove, str(self.path), os.getpid())


def _remove(path: str, pid: int) -> None:
    if os.getpid() == pid:  # a forked process has a copy of this object, but must leave the folder
        shutil.rmtree(path, ignore_errors=True)
