"""A whole slide that is open: its size, its resolution, and regions of it, never more than was asked for."""

from __future__ import annotations

import ctypes
import math
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.data import WSIReader
from numpy.typing import NDArray
from PIL import Image

from monai_mil_ext.utils import check_choice, check_positive, import_extra

__all__ = ["SlideFile", "SlideFileError", "Thumbnail"]

openslide = import_extra("wsi", "openslide")

Pixels = NDArray[np.uint8]
READERS = ("openslide", "tifffile", "cucim")
WHITE = 255  # what lies outside of a slide, and under what is transparent in it
OPAQUE = WHITE << 24  # the least number that blue, green, red and full opacity are, from the lowest byte
COARSEST = 20.0  # um a pixel; what is said beyond it is a printer's resolution, not a scanner's
UNEQUAL = 0.01  # how far the two sides of a pixel may differ
WHOLE_LEVEL = 2**30  # bytes that a reader may decode which reads a level whole
BLOCK = 2048  # pixels


class SlideFileError(ValueError):
    """A file that is no slide, or not one that can be read."""


class Thumbnail(NamedTuple):
    """A small picture of a whole slide."""

    image: Pixels  # (h, w, 3)
    downsample: float  # pixels of level 0 to one of the picture


class SlideFile:
    """Read a slide through :py:class:`monai.data.WSIReader`.

    What is outside of the slide, and what is transparent, is white. OpenSlide scales 16 bits a channel to 8. tifffile
    decodes level 0 whole for every region, so it takes small slides only, of 8 bits; for Aperio's it finds resolution
    and magnification in the description, where MONAI does not look. cuCIM is passed on to MONAI. The file is closed by
    ``close()``, at the end of a ``with`` block, and when nothing refers to the slide any more.

    Args:
        path: of the slide.
        reader: ``"openslide"``, ``"tifffile"`` or ``"cucim"``.
        mpp: micrometres per pixel of level 0, where the file tells none or is wrong.
        magnification: of level 0, such as 40, where the file tells none or is wrong.

    Raises:
        FileNotFoundError: when there is no such file.
        SlideFileError: when the file can't be read as a slide, or a region of it is damaged; its name is told, and
            not its folder.

    Attributes:
        name: of the file.
        reader: that it was opened with.
        size: (width, height) in pixels of level 0.
        downsamples: of each level, from 1.0.
        mpp: micrometres per pixel of level 0, or None.
        magnification: of level 0, or None.
    """

    _slide: Any = None  # also before it is open, and where the constructor ends before

    def __init__(
        self,
        path: str | os.PathLike[str],
        reader: str = "openslide",
        mpp: float | None = None,
        magnification: float | None = None,
    ) -> None:
        check_choice("reader", reader, READERS)
        for name, value in (("mpp", mpp), ("magnification", magnification)):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"`{name}` must be positive, got {value!r}.")
        self.path = Path(path)
        self.name = self.path.name
        if not self.path.is_file():
            raise FileNotFoundError(f"`slide` must be a file that exists, got {self.name!r}.")
        self.reader = reader
        self._tifffile = reader == "tifffile"
        try:
            with self._named("be a slide that can be read"):
                self._reader = WSIReader(reader)
                self._open()
                # levels of MONAI's tifffile reader are pages: thumbnail, label and macro image of Aperio's among them
                count = 1 if self._tifffile else self._reader.get_level_count(self._slide)
                sizes = [self._reader.get_size(self._slide, k) for k in range(count)]
                self._sizes = tuple((int(width), int(height)) for height, width in sizes)
                self.downsamples = tuple(float(self._reader.get_downsample_ratio(self._slide, k)) for k in range(count))
            self.size = self._sizes[0]
            self._check_whole_level()
            self.mpp = self._mpp() if mpp is None else float(mpp)
            self.magnification = self._magnification() if magnification is None else float(magnification)
        except BaseException:
            self.close()
            raise

    @property
    def closed(self) -> bool:
        """Whether the file was closed."""
        return self._slide is None

    def close(self) -> None:
        """Close the file; regions can no longer be read."""
        slide, self._slide = self._slide, None
        if slide is not None:
            slide.close()

    def __enter__(self) -> SlideFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def level_size(self, level: int) -> tuple[int, int]:
        """(width, height) in pixels of ``level``."""
        return self._sizes[level]

    def read(self, level: int, left: int, top: int, width: int, height: int) -> Pixels:
        """Pixels (``height``, ``width``, 3) of a region, all in pixels of ``level``."""
        limits = self.level_size(level)
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + width, limits[0]), min(top + height, limits[1])
        inside = x0 < x1 and y0 < y1
        if inside and (x1 - x0, y1 - y0) == (width, height):
            return self._read(level, x0, y0, width, height)
        region = np.full((height, width, 3), WHITE, dtype=np.uint8)
        if inside:
            region[y0 - top : y1 - top, x0 - left : x1 - left] = self._read(level, x0, y0, x1 - x0, y1 - y0)
        return region

    def thumbnail(self, max_size: int = 2048) -> Thumbnail:
        """The whole slide, its longer side at most ``max_size``: exact means of squares of the nearest finer level.

        It is read in blocks, so that a slide of one level, which has to be read whole for it, never is in memory.
        """
        check_positive(max_size=max_size)
        sizes = [max(self.level_size(k)) for k in range(len(self.downsamples))]
        level = max((k for k, side in enumerate(sizes) if side >= max_size), default=0)
        factor = math.ceil(sizes[level] / max_size)
        width, height = self.level_size(level)
        image = np.empty((math.ceil(height / factor), math.ceil(width / factor), 3), dtype=np.uint8)
        step = factor * max(1, BLOCK // factor)
        for top in range(0, height, step):
            for left in range(0, width, step):
                block = self.read(level, left, top, min(step, width - left), min(step, height - top))
                small = np.asarray(picture(block).reduce(factor))
                rows, columns = top // factor, left // factor
                image[rows : rows + small.shape[0], columns : columns + small.shape[1]] = small
        return Thumbnail(image, factor * self.downsamples[level])

    def _open(self) -> None:
        self.close()
        self._slide = self._reader.read(self.path)

    def _read(self, level: int, left: int, top: int, width: int, height: int) -> Pixels:
        if self._slide is None:
            raise ValueError(f"`slide` must be open to be read, got {self.name!r} after it was closed.")
        scale = self.downsamples[level]
        x, y = round(left * scale), round(top * scale)
        with self._named(f"be readable at level {level}, x {left}, y {top}"):
            try:
                if self._reader.backend == "openslide":
                    return _on_white(_premultiplied(self._slide, x, y, level, width, height))
                pixels, _ = self._reader.get_data(self._slide, (y, x), (height, width), level, mode="RGB")
            except Exception:
                self._open()  # after an error OpenSlide answers nothing any more
                raise
        image: Pixels = np.moveaxis(np.asarray(pixels), 0, -1)
        return image

    def _check_whole_level(self) -> None:
        """Refuse what a reader that decodes a level whole would get wrong, or not into memory."""
        if not self._tifffile:
            return
        series = self._slide.series[0]
        if series.axes != "YXS" or series.dtype != np.uint8:
            raise SlideFileError(
                f"`slide` must have red, green and blue of 8 bits for the reader 'tifffile', "
                f"got axes {series.axes} of {series.dtype} in {self.name!r}."
            )
        if series.nbytes > WHOLE_LEVEL:
            raise SlideFileError(
                f"`slide` must have at most {WHOLE_LEVEL} bytes for the reader 'tifffile', which decodes it whole "
                f"('openslide' does not), got {series.nbytes} in {self.name!r}."
            )

    def _mpp(self) -> float | None:
        told = self._description(r"\bMPP\s*=\s*([0-9.]+)")
        if told is not None:
            return told if told <= COARSEST else None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # MONAI takes a resolution without unit for micrometres
                sides = [float(v) for v in self._reader.get_mpp(self._slide, 0)]
        except (ValueError, KeyError, UserWarning):
            return None
        if not all(0 < side <= COARSEST for side in sides):
            return None
        if max(sides) > (1 + UNEQUAL) * min(sides):
            raise SlideFileError(f"`slide` must have square pixels, or `mpp` be given, got {sides} in {self.name!r}.")
        return sum(sides) / 2

    def _magnification(self) -> float | None:
        try:
            return float(self._reader.get_power(self._slide, 0))
        except (ValueError, KeyError):
            return self._description(r"\bAppMag\s*=\s*([0-9.]+)")

    def _description(self, pattern: str) -> float | None:
        """A number of Aperio's description, for the reader that does not look there."""
        if not self._tifffile:
            return None
        found = re.search(pattern, str(self._slide.pages[0].description))
        return float(found.group(1)) if found else None

    @contextmanager
    def _named(self, rule: str) -> Iterator[None]:
        try:
            yield
        except ImportError as error:
            raise ImportError("Reading slides needs more: pip install monai-mil-ext[wsi].") from error
        except MemoryError:
            raise
        except Exception as error:  # its words may have the path in them: they are not told as the cause
            raise SlideFileError(f"`slide` must {rule}, got {type(error).__name__} for {self.name!r}.") from None


def picture(pixels: Pixels) -> Image.Image:
    """The Pillow image of (h, w, 3). Channel by channel: NumPy is slow where few values lie side by side."""
    whole = np.empty(pixels.shape, dtype=np.uint8)
    for channel in range(3):
        whole[..., channel] = pixels[..., channel]
    return Image.fromarray(whole)


def _premultiplied(slide: Any, x: int, y: int, level: int, width: int, height: int) -> Pixels:
    """Blue, green, red, opacity (h, w, 4) as OpenSlide writes them, colours times opacity.

    ``read_region`` of openslide-python fills such a buffer too, and then copies it three times on the way to an array:
    a third of what a tile costs. MONAI asks for sizes and makes meta data for each region besides.
    """
    buffer = np.empty((height, width), dtype="<u4")
    where = buffer.ctypes.data_as(ctypes.POINTER(ctypes.c_uint32))
    openslide.lowlevel._read_region(slide._osr, where, x, y, level, width, height)
    return buffer.view(np.uint8).reshape(height, width, 4)


def _on_white(pixels: Pixels) -> Pixels:
    """Red, green, blue (h, w, 3) of what OpenSlide writes."""
    if pixels.view("<u4").min() >= OPAQUE:
        return pixels[..., 2::-1]
    over: Pixels = pixels[..., 2::-1] + (WHITE - pixels[..., 3:])
    return over
