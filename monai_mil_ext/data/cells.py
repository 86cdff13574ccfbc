"""Reader of cell images in a folder or zip archive."""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.utils import EmptyBagError, check_local, check_positive, optional_dependency

__all__ = ["CellImages"]

Image = optional_dependency("", "PIL.Image")

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"}
WIDE = ("I", "F")  # Pillow modes with more than eight bits per channel, which a conversion to eight would clip


class CellImages:
    """Images of one patient's cells, in a folder or zip archive of PNG, JPEG, BMP or TIFF files.

    The name of a cell is its path in the folder or archive, with ``/``; cells are sorted by name. Files of other types,
    hidden files and those that macOS adds are ignored. An archive is not extracted: each image is read into memory on
    request, and at most ``max_bytes`` of it, whatever its header declares.

    Args:
        path: the folder, or the ``.zip`` file.
        max_cells: largest number of images.
        max_bytes: largest size of an image file in bytes, uncompressed.
        max_pixels: largest number of pixels of an image; checked before decoding.

    Raises:
        FileNotFoundError: when there is no such folder or file.
        EmptyBagError: when it has no image.
        ValueError: when it is neither a folder nor a readable zip archive, an entry's path leads out of the archive or
            occurs twice, or there are too many images.

    Example:
        >>> folder = Path("cells")
        >>> folder.mkdir()
        >>> for name, gray in (("b.png", 200), ("a.png", 10)):
        ...     Image.new("L", (4, 3), gray).save(folder / name)
        >>> cells = CellImages(folder)
        >>> cells.names, cells.read("a.png", channels=3).shape
        (('a.png', 'b.png'), (3, 4, 3))
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        max_cells: int = 50_000,
        max_bytes: int = 2**25,
        max_pixels: int = 2**24,
    ) -> None:
        check_positive(max_cells=max_cells, max_bytes=max_bytes, max_pixels=max_pixels)
        check_local(image=path)
        self.path = Path(path)
        self.max_bytes = max_bytes
        self.max_pixels = max_pixels
        if not os.path.exists(self.path):
            raise FileNotFoundError(f"`image` must be a folder or zip archive that exists, got {self.path.name!r}.")
        self.is_folder = self.path.is_dir()
        names = self._folder_names() if self.is_folder else self._archive_names()
        if not names:
            raise EmptyBagError(f"`image` must hold an image of a cell, got none in {self.path.name!r}.")
        if len(names) > max_cells:
            raise ValueError(f"`image` must hold at most {max_cells} cells, got {len(names)} in {self.path.name!r}.")
        self.names = tuple(sorted(names))

    def __len__(self) -> int:
        """Return the number of cells."""
        return len(self.names)

    def read(self, name: str, channels: int = 3, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """Read one image (h, w, channels); transparent pixels are blended with white.

        Args:
            name: name of the cell, from ``names``.
            channels: 3 for RGB, 1 for gray.
            size: height and width to resize to, antialiased; ``None`` keeps the size.

        Raises:
            ValueError: when the image can't be decoded, is too large or has more than eight bits per channel.
        """
        with self._errors_for_cell(name):
            image = Image.open(io.BytesIO(self._content(name)), formats=sorted(set(FORMATS.values())))
        self._check(image, name)
        with self._errors_for_cell(name), image:
            converted = _on_white(image).convert("L" if channels == 1 else "RGB")
        if size is not None and converted.size != size[::-1]:
            converted = converted.resize(size[::-1], Image.Resampling.BILINEAR)
        return np.asarray(converted).reshape(converted.size[1], converted.size[0], channels)

    def _folder_names(self) -> list[str]:
        root = self.path.resolve()
        files = (file for file in self.path.rglob("*") if _is_cell(PurePosixPath(file.relative_to(self.path))))
        # a link may lead out of the folder
        inside = [file for file in files if file.is_file() and root in file.resolve().parents]
        return [file.relative_to(self.path).as_posix() for file in inside]

    def _archive_names(self) -> list[str]:
        if not zipfile.is_zipfile(self.path):
            raise ValueError(f"`image` must be a folder or a zip archive, got {self.path.name!r}.")
        with zipfile.ZipFile(self.path) as archive:
            entries = [info.filename for info in archive.infolist() if not info.is_dir()]
        names = [name for name in entries if _is_cell(PurePosixPath(name))]
        for name, count in Counter(names).items():
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
                raise ValueError(f"`image` must hold paths below the archive, got {name!r} in {self.path.name!r}.")
            if count > 1:
                raise ValueError(f"`image` must hold every name once, got {name!r} {count} times.")
        return names

    @contextlib.contextmanager
    def _errors_for_cell(self, name: str) -> Iterator[None]:
        """Convert any error of a decoder to one that names the cell; damaged files raise errors of many types."""
        try:
            yield
        except (_LimitError, ImportError):
            raise
        except Exception as error:
            raise ValueError(f"{self._subject(name)} be an image that can be read, got {_cause(error)}.") from None

    def _content(self, name: str) -> bytes:
        if name not in self.names:
            raise _LimitError(f"`name` must be that of a cell of {self.path.name!r}, got {name!r}.")
        content = self._bytes(name)
        if len(content) > self.max_bytes:
            raise _LimitError(f"{self._subject(name)} have at most {self.max_bytes} bytes, got more.")
        return content

    def _bytes(self, name: str) -> bytes:
        if self.is_folder:
            with (self.path / name).open("rb") as file:
                return file.read(self.max_bytes + 1)
        with zipfile.ZipFile(self.path) as archive, archive.open(name) as entry:
            return entry.read(self.max_bytes + 1)

    def _check(self, image: Any, name: str) -> None:
        if image.size[0] * image.size[1] > self.max_pixels:
            raise ValueError(f"{self._subject(name)} have at most {self.max_pixels} pixels, got {image.size}.")
        if image.mode.startswith(WIDE):
            raise ValueError(f"{self._subject(name)} have eight bits per channel, got mode {image.mode}.")

    def _subject(self, name: str) -> str:
        return f"cell {name!r} of {self.path.name!r} must"


class _LimitError(ValueError):
    """Error whose message names the cell already."""


def _is_cell(path: PurePosixPath) -> bool:
    """Return whether a path has the suffix of an image and no part that is hidden or added by macOS."""
    hidden = any(part.startswith(".") and not part.startswith("..") for part in path.parts)
    return path.suffix.lower() in FORMATS and not hidden and "__MACOSX" not in path.parts


def _on_white(image: Any) -> Any:
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image
    transparent = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", transparent.size, "white"), transparent)


def _cause(error: Exception) -> str:
    """Describe an error, without the representation of an in-memory buffer."""
    return type(error).__name__ if "BytesIO" in str(error) or not str(error) else str(error).rstrip(".")
