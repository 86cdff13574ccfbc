"""Reader of whole-slide images by region."""

from __future__ import annotations

import ctypes
import math
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.data import WSIReader
from numpy.typing import NDArray

from monai_mil_ext.utils import check_choice, check_local, check_positive, check_positive_number, optional_dependency

__all__ = ["SlideFile", "SlideFileError", "Thumbnail"]

Image = optional_dependency("", "PIL.Image")
openslide = optional_dependency("wsi", "openslide")

Pixels = NDArray[np.uint8]
READERS = ("openslide", "tifffile", "cucim")
WHITE = 255  # background outside of a slide and below transparent pixels
OPAQUE = WHITE << 24  # smallest little-endian value of a BGRA pixel that is fully opaque
COARSEST = 20.0  # um per pixel; a coarser stated resolution is that of a printer, not of a scanner
UNEQUAL = 0.01  # largest relative difference of the two sides of a pixel
WHOLE_LEVEL = 2**30  # bytes; largest level for a reader that decodes whole levels
BLOCK = 2048  # pixels along a side


class SlideFileError(ValueError):
    """Error of a file that is not a readable slide."""


class Thumbnail(NamedTuple):
    """Downsampled image of a whole slide."""

    image: Pixels  # (h, w, 3)
    downsample: float  # pixels of level 0 per pixel of the image
    origin: tuple[float, float] = (0.0, 0.0)  # (x, y) of its upper left corner in pixels of level 0


class SlideFile:
    """Whole-slide image file, read by region through :py:class:`monai.data.WSIReader`.

    Pixels outside of the slide and transparent pixels are white. OpenSlide converts 16 bits per channel to 8. tifffile
    decodes the whole level 0 for every region, so it accepts only small slides, of 8 bits; for Aperio slides,
    resolution and magnification are read from the description, which MONAI ignores. cuCIM is left to MONAI. The file is
    closed by ``close()``, at the end of a ``with`` block, and on garbage collection.

    Args:
        path: path of the slide.
        reader: ``"openslide"``, ``"tifffile"`` or ``"cucim"``.
        mpp: micrometers per pixel of level 0, if missing or wrong in the file.
        magnification: magnification of level 0, such as 40, if missing or wrong in the file.

    Raises:
        FileNotFoundError: when there is no such file.
        SlideFileError: when the file is not a readable slide, or a region of it is damaged; the message contains the
            name of the file, not its folder.

    Attributes:
        name: name of the file.
        reader: name of the reader.
        size: (width, height) in pixels of level 0.
        bounds: (x, y, width, height) of the scanned region in pixels of level 0; all of it if the file states none.
        downsamples: downsample of each level, starting with 1.0.
        mpp: micrometers per pixel of level 0, or ``None``.
        magnification: magnification of level 0, or ``None``.
    """

    _slide: Any = None  # so that close() works if the constructor fails early

    def __init__(
        self,
        path: str | os.PathLike[str],
        reader: str = "openslide",
        mpp: float | None = None,
        magnification: float | None = None,
    ) -> None:
        check_choice("reader", reader, READERS)
        for name, value in (("mpp", mpp), ("magnification", magnification)):
            if value is not None:
                check_positive_number(**{name: value})
        check_local(slide=path)
        self.path = Path(path)
        self.name = self.path.name
        if not os.path.isfile(self.path):
            raise FileNotFoundError(f"`slide` must be a file that exists, got {self.name!r}.")
        self.reader = reader
        self._tifffile = reader == "tifffile"
        try:
            with self._errors_for_slide("be a slide that can be read"):
                self._reader = WSIReader(reader)
                self._open()
                # MONAI's tifffile reader counts pages, including Aperio's thumbnail, label and macro image
                count = 1 if self._tifffile else self._reader.get_level_count(self._slide)
                sizes = [self._reader.get_size(self._slide, k) for k in range(count)]
                self._sizes = tuple((int(width), int(height)) for height, width in sizes)
                self.downsamples = tuple(float(self._reader.get_downsample_ratio(self._slide, k)) for k in range(count))
            self.size = self._sizes[0]
            self.bounds = _scanned(getattr(self._slide, "properties", {}), self.size)
            self._check_whole_level()
            self.mpp = self._mpp() if mpp is None else float(mpp)
            self.magnification = self._magnification() if magnification is None else float(magnification)
        except BaseException:
            self.close()
            raise

    @property
    def closed(self) -> bool:
        """True after the file was closed."""
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
        """Return (width, height) in pixels of ``level``."""
        return self._sizes[level]

    def read(self, level: int, left: int, top: int, width: int, height: int) -> Pixels:
        """Read the pixels (``height``, ``width``, 3) of a region, given in pixels of ``level``."""
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
        """Read a thumbnail of the ``bounds`` whose longer side has at most ``max_size`` pixels.

        Its pixels are exact means of squares of the nearest finer level. That level is read in blocks, so that even a
        slide with one level is never in memory as a whole.
        """
        check_positive(max_size=max_size)
        spans = [self._bounds_of_level(k) for k in range(len(self.downsamples))]
        level = max((k for k, (_, _, *sides) in enumerate(spans) if max(sides) >= max_size), default=0)
        x, y, width, height = spans[level]
        factor = math.ceil(max(width, height) / max_size)
        image = np.empty((math.ceil(height / factor), math.ceil(width / factor), 3), dtype=np.uint8)
        step = factor * max(1, BLOCK // factor)
        for top in range(0, height, step):
            for left in range(0, width, step):
                block = self.read(level, x + left, y + top, min(step, width - left), min(step, height - top))
                small = np.asarray(to_pil(block).reduce(factor))
                rows, columns = top // factor, left // factor
                image[rows : rows + small.shape[0], columns : columns + small.shape[1]] = small
        scale = self.downsamples[level]
        return Thumbnail(image, factor * scale, (x * scale, y * scale))

    def _bounds_of_level(self, level: int) -> tuple[int, int, int, int]:
        """Return (x, y, width, height) of the bounds in whole pixels of ``level``."""
        limits, scale = self.level_size(level), self.downsamples[level]
        x, y, width, height = self.bounds
        if (width, height) == self.size:
            return 0, 0, *limits
        left, top = (min(math.floor(start / scale), limit - 1) for start, limit in zip((x, y), limits, strict=True))
        right, bottom = min(math.ceil((x + width) / scale), limits[0]), min(math.ceil((y + height) / scale), limits[1])
        return left, top, max(right - left, 1), max(bottom - top, 1)

    def _open(self) -> None:
        self.close()
        self._slide = self._reader.read(self.path)

    def _read(self, level: int, left: int, top: int, width: int, height: int) -> Pixels:
        if self._slide is None:
            raise ValueError(f"`slide` must be open, got {self.name!r} after it was closed.")
        scale = self.downsamples[level]
        x, y = round(left * scale), round(top * scale)
        with self._errors_for_slide(f"be readable at level {level}, x {left}, y {top}"):
            try:
                if self._reader.backend == "openslide":
                    return _on_white(_premultiplied(self._slide, x, y, level, width, height))
                pixels, _ = self._reader.get_data(self._slide, (y, x), (height, width), level, mode="RGB")
            except Exception:
                self._open()  # after an error OpenSlide refuses every further read
                raise
        image: Pixels = np.moveaxis(np.asarray(pixels), 0, -1)
        return image

    def _check_whole_level(self) -> None:
        """Refuse slides that tifffile, which decodes whole levels, would read wrongly or not into memory."""
        if not self._tifffile:
            return
        series = self._slide.series[0]
        if series.axes != "YXS" or series.dtype != np.uint8:
            raise SlideFileError(
                f"`slide` must have three channels (RGB) of 8 bits for the reader 'tifffile', "
                f"got axes {series.axes} of {series.dtype} in {self.name!r}."
            )
        if series.nbytes > WHOLE_LEVEL:
            raise SlideFileError(
                f"`slide` must have at most {WHOLE_LEVEL} bytes for the reader 'tifffile', which decodes it whole "
                f"('openslide' does not), got {series.nbytes} in {self.name!r}."
            )

    def _mpp(self) -> float | None:
        aperio_mpp = self._description(r"\bMPP\s*=\s*([0-9.]+)")
        if aperio_mpp is not None:
            return aperio_mpp if aperio_mpp <= COARSEST else None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # MONAI warns and assumes micrometers if the resolution has no unit
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
        """Return a number from Aperio's description, which MONAI's tifffile reader ignores."""
        if not self._tifffile:
            return None
        match = re.search(pattern, str(self._slide.pages[0].description))
        return float(match.group(1)) if match else None

    @contextmanager
    def _errors_for_slide(self, rule: str) -> Iterator[None]:
        try:
            yield
        except ImportError:
            raise ImportError("Reading slides needs more: pip install monai-mil-ext[wsi].") from None
        except MemoryError:
            raise
        except Exception as error:  # not chained, since its message may contain the path
            raise SlideFileError(f"`slide` must {rule}, got {type(error).__name__} for {self.name!r}.") from None


def _scanned(properties: Mapping[str, str], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the bounds that OpenSlide states, or those of the whole slide if there are none or they are wrong."""
    try:
        x, y, width, height = (int(properties[f"openslide.bounds-{name}"]) for name in ("x", "y", "width", "height"))
    except (KeyError, ValueError):
        return 0, 0, *size
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + width, size[0]), min(y + height, size[1])
    return (left, top, right - left, bottom - top) if left < right and top < bottom else (0, 0, *size)


def to_pil(pixels: Pixels) -> Any:
    """Convert pixels (h, w, 3) to a Pillow image."""
    contiguous = np.empty(pixels.shape, dtype=np.uint8)
    for channel in range(3):  # NumPy copies strided channels faster than strided pixels of three values
        contiguous[..., channel] = pixels[..., channel]
    return Image.fromarray(contiguous)


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
