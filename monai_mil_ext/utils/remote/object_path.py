"""Paths of objects in a store, with the methods of ``pathlib.Path`` that readers and writers use."""

from __future__ import annotations

import io
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PosixPath
from typing import IO, Any

from .store import StoreError, open_store, store_errors

__all__ = ["ObjectPath", "as_path", "exists", "is_remote", "isdir", "isfile"]

STORES = ("s3", "s3a", "gs", "gcs", "memory")
# one slash is left of the two where a Path was made of an address
ADDRESS = re.compile(rf"({'|'.join(STORES)}):/{{1,2}}(?!/)", re.IGNORECASE)


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is the address of an object store.

    Example:
        >>> is_remote("s3://bucket/a.h5"), is_remote(Path("gs://bucket/a.h5")), is_remote("a.h5"), is_remote("ftp://a")
        (True, True, False, False)
    """
    return ADDRESS.match(os.fspath(path)) is not None


def as_path(path: str | os.PathLike[str]) -> Path:
    """Return an :py:class:`ObjectPath` for the address of an object store, and a ``Path`` for everything else.

    Example:
        >>> str(as_path("s3://bucket/features/a.h5").parent), str(as_path("features/a.h5").parent)
        ('s3://bucket/features', 'features')
    """
    return ObjectPath(path) if is_remote(path) else Path(path)


def exists(path: str | os.PathLike[str]) -> bool:
    """Return whether a path or an address exists; as of ``os.path.exists``, no local path is an error.

    Example:
        >>> exists("n" * 1000), exists("memory://bucket/none")
        (False, False)
    """
    return ObjectPath(path).exists() if is_remote(path) else os.path.exists(path)


def isfile(path: str | os.PathLike[str]) -> bool:
    """Return whether a path or an address is that of a file or an object; see :py:func:`exists`."""
    return ObjectPath(path).is_file() if is_remote(path) else os.path.isfile(path)


def isdir(path: str | os.PathLike[str]) -> bool:
    """Return whether a path or an address is that of a folder; see :py:func:`exists`."""
    return ObjectPath(path).is_dir() if is_remote(path) else os.path.isdir(path)


class ObjectPath(PosixPath):
    """Path of an object, or of all objects below a prefix, in a store that fsspec reads.

    A write is an upload of a finished file: an object is there whole or not at all. There are no links, and a folder
    exists as long as there is an object below it.

    Raises:
        ValueError: when the address has no bucket, has credentials, or has ``..``.

    Example:
        >>> folder = ObjectPath("memory://bucket/bags")
        >>> (folder / "a.txt").write_bytes(b"12")
        2
        >>> (folder / "a.txt").read_bytes(), folder.is_dir(), [path.name for path in folder.iterdir()]
        (b'12', True, ['a.txt'])
    """

    def __new__(cls, *parts: str | os.PathLike[str]) -> ObjectPath:
        """Make a path of an address and further parts."""
        path: ObjectPath = super().__new__(cls, *parts)
        if len(path.parts) < 2 or re.search("[@:]", path.parts[1]):
            raise ValueError("`path` must begin with a scheme and a bucket and have no credentials, got another.")
        if ".." in path.parts:
            raise ValueError("`path` must be the address of an object, got one with '..'.")
        return path

    def __str__(self) -> str:
        text = super().__str__()
        return ADDRESS.sub(lambda match: f"{match[1].lower()}://", text, count=1) if ADDRESS.match(text) else text

    def __fspath__(self) -> str:
        return str(self)

    @property
    def bucket(self) -> ObjectPath:
        """Path of the bucket."""
        return ObjectPath(*self.parts[:2])

    def absolute(self) -> ObjectPath:
        """Return the path itself."""
        return self

    def resolve(self, strict: bool = False) -> ObjectPath:
        """Return the path itself, since there are no links."""
        return self

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Return the kind and the size."""
        info = self.info()
        kind = stat.S_IFDIR if info["type"] == "directory" else stat.S_IFREG
        return os.stat_result((kind, 0, 0, 0, 0, 0, int(info.get("size") or 0), 0, 0, 0))

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Return whether there is an object, or one below this prefix."""
        return self._kind() != ""

    def is_file(self) -> bool:
        """Return whether there is an object."""
        return self._kind() == "file"

    def is_dir(self) -> bool:
        """Return whether there are objects below this prefix."""
        return self._kind() == "directory"

    def _kind(self) -> str:
        try:
            return str(self.info()["type"])
        except FileNotFoundError:
            return ""

    def info(self) -> dict[str, Any]:
        """Return what the store states of the object: ``type``, ``size`` and more."""
        store, key = open_store(str(self))
        with store_errors(self.name):
            try:
                return dict(store.info(key))
            except FileNotFoundError:
                if self._lacks_bucket(store):
                    raise StoreError(f"`path` must lie in a bucket that exists, got none for {self.name!r}.") from None
                raise

    def _lacks_bucket(self, store: Any) -> bool:
        """Return whether the bucket does not exist; that of the store in memory is there with its first object."""
        if self == self.bucket or self.parts[0].lower() == "memory:":
            return False
        return not store.exists(open_store(str(self.bucket))[1])

    def version(self) -> str:
        """Return a text that changes with the content of the object, or of the objects below a prefix."""
        store, key = open_store(str(self))
        with store_errors(self.name):
            if self.is_dir():
                return repr(sorted((name, i["size"], str(i.get("ETag"))) for name, i in _find(store, key).items()))
            return str(store.ukey(key))

    def checksum(self) -> str:
        """Return what copies of an object share, as far as the store states it."""
        info = self.info()
        return str(info.get("ETag") or info.get("md5Hash") or self.version())

    def sizes(self) -> dict[ObjectPath, int]:
        """Return the sizes of all objects below this prefix, in the order of their names, in a few requests."""
        store, key = open_store(str(self))
        with store_errors(self.name):
            found = _find(store, key)
        prefix = key.rstrip("/") + "/"
        inner = {name: info["size"] for name, info in sorted(found.items()) if name.startswith(prefix)}
        return {self / name.removeprefix(prefix): int(size) for name, size in inner.items()}

    def rglob(self, pattern: str) -> Iterator[ObjectPath]:  # type: ignore[override]
        """Yield the objects below this prefix whose name fits the pattern."""
        return (path for path in self.sizes() if path.match(pattern))

    def iterdir(self) -> Iterator[ObjectPath]:  # type: ignore[override]
        """Yield what lies directly below this prefix."""
        depth = len(self.parts) + 1
        return iter(dict.fromkeys(ObjectPath(*path.parts[:depth]) for path in self.sizes()))

    def glob(self, pattern: str) -> Iterator[ObjectPath]:  # type: ignore[override]
        """Yield what lies below this prefix and fits a pattern, which has a part for each level."""
        depth = len(self.parts) + len(Path(pattern).parts)
        below = dict.fromkeys(ObjectPath(*path.parts[:depth]) for path in self.sizes())
        return (path for path in below if len(path.parts) == depth and path.match(pattern))

    def open(self, mode: str = "r", *args: Any, **kwargs: Any) -> IO[Any]:  # type: ignore[override]
        """Open the object, which is read whole, for reading."""
        if set(mode) & set("wax+"):
            raise ValueError(f"`mode` must be that of reading, got {mode!r}.")
        content = io.BytesIO(self.read_bytes())
        text = {name: value for name, value in kwargs.items() if name in ("encoding", "errors", "newline")}
        return content if "b" in mode else io.TextIOWrapper(content, **{"encoding": "utf-8", **text})

    def read_bytes(self) -> bytes:
        """Return the content of the object."""
        store, key = open_store(str(self))
        with store_errors(self.name):
            return bytes(store.cat_file(key))

    def write_bytes(self, data: Any) -> int:
        """Write the object at once."""
        store, key = open_store(str(self))
        with store_errors(self.name):
            store.pipe_file(key, bytes(data))
        return len(data)

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: a folder is there once an object is."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object."""
        store, key = open_store(str(self))
        with suppress(*([FileNotFoundError] if missing_ok else [])), store_errors(self.name):
            store.rm_file(key)

    @contextmanager
    def atomic(self) -> Iterator[Path]:
        """Yield a temporary file on this machine, which is uploaded on success and removed."""
        with tempfile.TemporaryDirectory(prefix="upload-") as folder:
            temporary = Path(folder, "new" + "".join(self.suffixes[-2:])[-32:])
            temporary.touch()
            yield temporary
            self.upload(temporary)

    def upload(self, file: str | os.PathLike[str]) -> None:
        """Write the object with the content of a file of this machine, whole or not at all."""
        store, key = open_store(str(self))
        with store_errors(self.name):
            if store.async_impl:  # a large file in parts, which become an object once all have arrived
                store.put_file(os.fspath(file), key)
            else:
                store.pipe_file(key, Path(file).read_bytes())


def _find(store: Any, key: str) -> dict[str, dict[str, Any]]:
    found = store.find(key, detail=True)
    return {name: info for name, info in found.items() if not name.endswith("/")}
