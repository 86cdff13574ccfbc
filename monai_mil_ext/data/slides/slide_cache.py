"""Cache of open slides, so that several transforms read a slide through one handle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from monai_mil_ext.utils import check_positive

from .slide_file import SlideFile

__all__ = ["SlideCache"]

Key = tuple[tuple[str, int, int], str, float | None, float | None]  # file, reader, resolution, magnification


class SlideCache:
    """Cache of open slides, shared by the transforms that load a slide and those that show parts of it.

    If :py:class:`monai_mil_ext.transforms.SlideFeaturesd` and :py:class:`monai_mil_ext.transforms.ReadTilesd` share a
    cache, a slide is opened once for its prediction and its pictures. A handle is never shared between processes: if
    worker processes load slides, the worker and the process that shows tiles each open the slide. A slide whose file
    has changed is opened again.

    Args:
        max_open: number of slides to keep open; the least recently used slide is closed first.

    Raises:
        ValueError: when ``max_open`` is not a positive integer.
    """

    def __init__(self, max_open: int = 1) -> None:
        check_positive(max_open=max_open)
        self.max_open = max_open
        self._slides: dict[Key, SlideFile] = {}
        self._process = -1

    def open(
        self,
        path: str | os.PathLike[str],
        reader: str = "openslide",
        mpp: float | None = None,
        magnification: float | None = None,
    ) -> SlideFile:
        """Return the open slide at ``path``; the arguments are those of :py:class:`SlideFile`."""
        self._drop_inherited()
        return self._get((_file_version(path), reader, mpp, magnification), path)

    def open_pixels(self, path: str | os.PathLike[str], reader: str = "openslide") -> SlideFile:
        """Return the open slide at ``path`` with any resolution, for reading regions only."""
        self._drop_inherited()
        version = _file_version(path)
        keys = [key for key in self._slides if key[:2] == (version, reader)]
        return self._get(keys[-1] if keys else (version, reader, None, None), path)

    def close(self) -> None:
        """Close all slides; they are opened again on request."""
        self._drop_inherited()
        while self._slides:
            self._slides.popitem()[1].close()

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for another process, which opens its slides itself."""
        return {**self.__dict__, "_slides": {}, "_process": -1}

    def _get(self, key: Key, path: str | os.PathLike[str]) -> SlideFile:
        slide = self._slides.pop(key, None)
        while slide is None and len(self._slides) >= self.max_open:
            self._slides.pop(next(iter(self._slides))).close()
        self._slides[key] = SlideFile(path, *key[1:]) if slide is None else slide
        return self._slides[key]

    def _drop_inherited(self) -> None:
        # a fork shares the position in an open file with its parent
        if self._process != os.getpid():
            self._slides, self._process = {}, os.getpid()


def _file_version(path: str | os.PathLike[str]) -> tuple[str, int, int]:
    """Return the path, size and modification time of a file; -1 for one that does not exist."""
    try:
        status = Path(path).stat()
    except OSError:
        return os.fspath(path), -1, -1
    return os.fspath(path), status.st_size, status.st_mtime_ns
