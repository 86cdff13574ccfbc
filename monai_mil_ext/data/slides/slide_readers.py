"""Readers of slide files by OpenSlide, cuCIM or tifffile, and the choice among them."""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from monai.data import WSIReader
from numpy.typing import NDArray

from monai_mil_ext.utils import optional_dependency

from .dicom_slides import single_pyramid
from .slide_errors import SlideFileError, is_dicom
from .tiff_end import ends_early, is_tiff
from .tiff_reader import TiffReader

__all__ = ["READERS", "WHITE", "MonaiReader", "Pixels", "SlideReader", "open_reader"]

openslide = optional_dependency("wsi", "openslide")

Pixels = NDArray[np.uint8]
READERS = ("openslide", "tifffile", "cucim")
WHITE = 255  # background outside of a slide and below transparent pixels
OPAQUE = WHITE << 24  # smallest little-endian value of a BGRA pixel that is fully opaque
SMALL = 2  # pixels; rounding of the sides of a level
NDPI = ".ndpi"  # has offsets of 64 bits in directories of 32 bits
GENERIC = "generic-tiff"  # OpenSlide's vendor of TIFF files of no scanner
CONTAINERS = {
    "aperio": "Aperio SVS",
    "dicom": "DICOM WSI",
    GENERIC: "generic TIFF",
    "hamamatsu": "Hamamatsu",
    "leica": "Leica SCN",
    "mirax": "MIRAX",
    "philips": "Philips TIFF",
    "sakura": "Sakura SVSLIDE",
    "trestle": "Trestle TIFF",
    "ventana": "Ventana BIF",
    "zeiss": "Zeiss CZI",
}


class SlideReader(Protocol):
    """Reader of an open slide."""

    container: str  # kind of file
    notes: list[str]  # what was done while reading
    sizes: tuple[tuple[int, int], ...]  # (width, height) of each level
    downsamples: tuple[float, ...]  # of each level, starting with 1.0
    bounds: tuple[int, int, int, int]  # (x, y, width, height) of the scanned region in pixels of level 0

    def mpp(self) -> tuple[float, ...] | None:
        """Return the stated sides of a pixel of level 0 in micrometers."""

    def magnification(self) -> float | None:
        """Return the stated magnification of level 0."""

    def read(self, level: int, left: int, top: int, width: int, height: int) -> Pixels:
        """Read pixels (h, w, 3) of a region that lies in ``level``."""

    def close(self) -> None:
        """Close the file."""


def open_reader(path: Path, name: str) -> SlideReader:
    """Open a slide; TIFF files that OpenSlide refuses, or reads only in part, are left to tifffile."""
    if is_tiff(path) and path.suffix.lower() != NDPI and ends_early(path):
        raise SlideFileError("`slide` must be a slide that can be read, got a TIFF file that is cut off.")
    if name == "tifffile":
        return TiffReader(path)
    if name == "cucim":
        return MonaiReader(path, name)
    try:
        reader = MonaiReader(path, name)
    except openslide.OpenSlideError:
        if not is_tiff(path) or openslide.OpenSlide.detect_format(path) not in (None, GENERIC):
            raise
        other = TiffReader(path)
        other.notes.append("The file was read by tifffile, since OpenSlide does not open it.")
        return other
    if reader.vendor == GENERIC and TiffReader.knows_more(path):
        reader.close()
        return TiffReader(path)
    return reader


class MonaiReader:
    """Reader of a slide through :py:class:`monai.data.WSIReader`.

    Args:
        path: path of the file.
        name: ``"openslide"`` or ``"cucim"``.
    """

    _slide: Any = None

    def __init__(self, path: Path, name: str) -> None:
        self._links = ExitStack()  # of links to files, which must last as long as the reader
        self._path = self._links.enter_context(single_pyramid(path)) if is_dicom(path) else path
        self._reader = WSIReader(name)
        self._open()
        levels = range(self._reader.get_level_count(self._slide))
        sizes = [self._reader.get_size(self._slide, k) for k in levels]
        self.sizes = tuple((int(width), int(height)) for height, width in sizes)
        self.downsamples = tuple(float(self._reader.get_downsample_ratio(self._slide, k)) for k in levels)
        properties = getattr(self._slide, "properties", {})
        self.vendor = str(properties.get("openslide.vendor", ""))
        self.container = CONTAINERS.get(self.vendor, self.vendor)
        if self.vendor == "hamamatsu":
            self.container += f" {path.suffix[1:].upper()}"
        self.bounds = _scanned(properties, self.sizes[0])
        self.notes: list[str] = []
        if self.vendor == "dicom":
            self._check_levels()

    def close(self) -> None:
        """Close the file."""
        self._close()
        self._links.close()

    def mpp(self) -> tuple[float, ...] | None:
        """Return the stated sides of a pixel of level 0 in micrometers."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # MONAI warns and assumes micrometers if the resolution has no unit
                return tuple(float(v) for v in self._reader.get_mpp(self._slide, 0))
        except (ValueError, KeyError, UserWarning):
            return None

    def magnification(self) -> float | None:
        """Return the stated magnification of level 0."""
        try:
            return float(self._reader.get_power(self._slide, 0))
        except (ValueError, KeyError):
            return None

    def read(self, level: int, left: int, top: int, width: int, height: int) -> Pixels:
        """Read pixels (h, w, 3) of a region that lies in ``level``."""
        scale = self.downsamples[level]
        x, y = round(left * scale), round(top * scale)
        try:
            if self._reader.backend == "openslide":
                return _on_white(_premultiplied(self._slide, x, y, level, width, height))
            pixels, _ = self._reader.get_data(self._slide, (y, x), (height, width), level, mode="RGB")
        except Exception:
            self._open()  # after an error OpenSlide refuses every further read
            raise
        image: Pixels = np.moveaxis(np.asarray(pixels), 0, -1)
        return image

    def _open(self) -> None:
        self._close()
        self._slide = self._reader.read(self._path)

    def _close(self) -> None:
        slide, self._slide = self._slide, None
        if slide is not None:
            slide.close()

    def _check_levels(self) -> None:
        """Refuse levels that are no images of the same, as of several pyramids of DICOM that do not tell them apart."""
        (width, height), *others = self.sizes
        unequal = [(w, h) for w, h in others if abs(width * h - height * w) > SMALL * max(width, height)]
        if unequal or list(self.downsamples) != sorted(set(self.downsamples)):
            raise SlideFileError(
                f"`slide` must have levels of the same image, got sizes {', '.join(map(str, self.sizes))}.",
                container=self.container,
                shape=self.sizes[0],
            )


def _scanned(properties: Mapping[str, str], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the bounds that OpenSlide states, within the slide; all of it if there are none or they are wrong."""
    try:
        x, y, width, height = (int(properties[f"openslide.bounds-{name}"]) for name in ("x", "y", "width", "height"))
    except (KeyError, ValueError):
        return 0, 0, *size
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + width, size[0]), min(y + height, size[1])
    return (left, top, right - left, bottom - top) if left < right and top < bottom else (0, 0, *size)


def _premultiplied(slide: Any, x: int, y: int, level: int, width: int, height: int) -> Pixels:
    """Read premultiplied blue, green, red and alpha (h, w, 4), as OpenSlide returns them.

    ``read_region`` of openslide-python fills such a buffer too but then copies it three times, a third of the time of
    a tile. MONAI in addition queries sizes and creates metadata for each region.
    """
    buffer = np.empty((height, width), dtype="<u4")
    pointer = buffer.ctypes.data_as(ctypes.POINTER(ctypes.c_uint32))
    openslide.lowlevel._read_region(slide._osr, pointer, x, y, level, width, height)
    return buffer.view(np.uint8).reshape(height, width, 4)


def _on_white(pixels: Pixels) -> Pixels:
    """Convert premultiplied BGRA to RGB (h, w, 3) on white."""
    if pixels.view("<u4").min() >= OPAQUE:
        return pixels[..., 2::-1]
    blended: Pixels = pixels[..., 2::-1] + (WHITE - pixels[..., 3:])
    return blended
