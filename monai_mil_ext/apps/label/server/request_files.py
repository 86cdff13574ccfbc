"""Temporary files of the server: in a private folder, where each request has a folder that ends with it."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from monai_mil_ext.apps.label._monailabel import FileLock

__all__ = ["RequestFiles", "request_folder"]

LOCK = ".lock"
MAKERS = ("NamedTemporaryFile", "TemporaryDirectory", "mkdtemp", "mkstemp")
_FOLDER: ContextVar[str | None] = ContextVar("folder of the request", default=None)


def request_folder() -> str | None:
    """Return the folder for temporary files of the request in progress, or None outside of a request."""
    return _FOLDER.get()


class RequestFiles:
    """Private folder for the temporary files of a server (mode 700).

    MONAI Label removes its copy of an upload only after an answer without an error. Here, whatever a request has
    written is removed when the request ends. The folder of a server is removed when the server ends, or else when the
    next one of the same app starts.

    Args:
        base: folder of the servers of an app, in which each makes its own.

    Raises:
        PermissionError: when ``base`` belongs to another user, who could exchange files in it.
    """

    def __init__(self, base: str | os.PathLike[str]) -> None:
        place = Path(base)
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if place.is_symlink() or place.stat().st_uid != os.getuid():
            raise PermissionError(f"`temporary` must be a folder of the user who runs the server, got {place.name!r}.")
        place.chmod(0o700)
        with FileLock(place / LOCK):
            for other in place.glob("server-*"):
                _remove_unused(other)
            self.folder = Path(tempfile.mkdtemp(prefix="server-", dir=place))
            self._in_use = FileLock(self.folder / LOCK, thread_local=False)
            self._in_use.acquire()
        atexit.register(self.close)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Give the request within the context a folder, which is removed with all that was written to it."""
        with tempfile.TemporaryDirectory(prefix="request-", dir=self.folder) as folder:
            token = _FOLDER.set(folder)
            try:
                yield
            finally:
                _FOLDER.reset(token)

    def use(self) -> None:
        """Let this process, its children, and the modules of MONAI Label write their temporary files here."""
        tempfile.tempdir = os.environ["TMPDIR"] = str(self.folder)
        makers = {name: partial(_in_request, getattr(tempfile, name)) for name in MAKERS}
        own = SimpleNamespace(**{**vars(tempfile), **makers})
        for name, module in list(sys.modules.items()):
            if name.startswith("monailabel.") and getattr(module, "tempfile", None) is tempfile:
                module.tempfile = own  # type: ignore[attr-defined]

    def close(self) -> None:
        """Remove the folder of the server."""
        self._in_use.release()
        shutil.rmtree(self.folder, ignore_errors=True)


def _in_request(make: Any, *args: Any, **options: Any) -> Any:
    return make(*args, **{"dir": request_folder(), **options})


def _remove_unused(folder: Path) -> None:
    """Remove the folder of a server that has ended, whose lock nobody holds."""
    lock = FileLock(folder / LOCK, blocking=False)
    try:
        lock.acquire()
    except TimeoutError:
        return
    lock.release()
    shutil.rmtree(folder, ignore_errors=True)
