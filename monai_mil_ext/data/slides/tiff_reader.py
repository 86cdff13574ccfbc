"""Reader of regions of TIFF files that OpenSlide does not read, or reads without their levels and resolution."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_mil_ext.utils import optional_dependency

from .slide_errors import CONVERT, SlideFileError
from .slide_resolution import aperio_value, ome_pixel_size, tag_pixel_size
from .tiff_layout import find_layout, is_turned

__all__ = ["TiffReader"]

tifffile = optional_dependency("wsi", "tifffile")

Pixels = NDArray[np.uint8]
WHITE = 255
CACHED = 2**26  # bytes of decoded tiles to keep
SEGMENT = 2**30  # bytes; the largest tile or strip to decode
JPEG = (6, 7, 33007, 34892)  # compressions whose tables are stored once for a page
PREMULTIPLIED, ALPHA = 1, 2  # kinds of extra samples


class TiffReader:
    """Reader of a TIFF file that decodes only the tiles or strips that a region needs.

    Args:
        path: path of the file.
    """

    def __init__(self, path: Path) -> None:
        with _quiet():
            self._file = tifffile.TiffFile(path, _multifile=False)  # OME-XML may name other files
            try:
                self._layout = find_layout(self._file)
            except BaseException:
                self._file.close()
                raise
        self.container, self.notes = self._layout.container, self._layout.notes
        self.sizes = tuple(self._layout.sizes)
        width, height = self.sizes[0]
        self.downsamples = tuple((width / w + height / h) / 2 for w, h in self.sizes)
        self.bounds = (0, 0, width, height)
        self._cache: OrderedDict[tuple[int, int, int], NDArray[Any] | None] = OrderedDict()
        self._cached = 0
        try:
            self._check_segments()
        except BaseException:
            self._file.close()
            raise

    @staticmethod
    def knows_more(path: Path) -> bool:
        """Return whether a TIFF file has levels, channels or metadata that OpenSlide ignores or takes for others."""
        try:
            with _quiet(), tifffile.TiffFile(path) as file:
                page = file.pages[0]
                beside = page.is_ome or page.is_qpi or page.subifds or "I" in file.series[0].axes
                gray = page.photometric in (tifffile.PHOTOMETRIC.MINISWHITE, tifffile.PHOTOMETRIC.MINISBLACK)
                return bool(beside or gray or 0 in page.extrasamples or is_turned(page))
        except Exception:  # of whatever kind; OpenSlide has opened the file
            return False

    def close(self) -> None:
        """Close the file."""
        self._cache.clear()
        self._file.close()

    def mpp(self) -> tuple[float, float] | None:
        """Return the stated sides of a pixel of level 0 in micrometers."""
        page, ome = self._page(0, 0), self._layout.ome
        aperio = aperio_value(self._description(), "MPP") if self.container == "Aperio SVS" else None
        if aperio is not None:
            return aperio, aperio
        sides = None if ome is None else ome_pixel_size(ome)
        unit = str((self._file.imagej_metadata or {}).get("unit", "")).replace("\\u00B5", "µ").lower()
        return sides or tag_pixel_size(page.aspage(), unit)

    def magnification(self) -> float | None:
        """Return the stated magnification of level 0."""
        text = self._description()
        if self.container == "Akoya QPTIFF":
            return _between(text, "Objective")
        return aperio_value(text, "AppMag")

    def read(self, level: int, left: int, top: int, width: int, height: int) -> Pixels:
        """Read pixels (h, w, 3) of a region that lies in ``level``."""
        pages = range(len(self._layout.levels[level]))
        planes = [self._read_page(level, k, left, top, width, height) for k in pages]
        pixels = self._to_bytes(np.concatenate(planes, axis=-1))
        extra = [int(kind) for kind in self._page(level, 0).keyframe.extrasamples][:1]
        return _on_white(pixels, extra == [PREMULTIPLIED]) if extra in ([PREMULTIPLIED], [ALPHA]) else pixels[..., :3]

    def _read_page(self, level: int, number: int, left: int, top: int, width: int, height: int) -> NDArray[Any]:
        page = self._page(level, number)
        separate = page.keyframe.planarconfig == 2 and page.keyframe.samplesperpixel > 1
        samples = page.keyframe.samplesperpixel
        region = np.full((height, width, samples), np.iinfo(page.keyframe.dtype).max, dtype=page.keyframe.dtype)
        tall, wide = page.keyframe.chunks[:2]
        rows, columns = page.keyframe.chunked[1:3] if separate else page.keyframe.chunked[:2]
        for plane in range(samples if separate else 1):
            target = region[..., plane : plane + 1] if separate else region
            for row in range(top // tall, (top + height - 1) // tall + 1):
                for column in range(left // wide, (left + width - 1) // wide + 1):
                    segment = self._segment(level, number, (plane * rows + row) * columns + column)
                    _paste(target, segment, row * tall - top, column * wide - left)
        return region

    def _segment(self, level: int, number: int, index: int) -> NDArray[Any] | None:
        """Return the pixels (h, w, s) of a tile or strip, which may lie beyond the image; None if it is not stored."""
        key = (level, number, index)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        pixels = self._decode(self._page(level, number), index)
        self._cache[key] = pixels
        self._cached += 0 if pixels is None else pixels.nbytes
        while self._cached > CACHED and len(self._cache) > 1:
            dropped = self._cache.popitem(last=False)[1]
            self._cached -= 0 if dropped is None else dropped.nbytes
        return pixels

    def _decode(self, page: Any, index: int) -> NDArray[Any] | None:
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        if count == 0:
            return None
        handle = self._file.filehandle
        handle.seek(offset)
        content = handle.read(count)
        if len(content) < count:
            raise EOFError("the file ends within a tile")
        options = {}
        if int(page.keyframe.compression) in JPEG:
            options = {"jpegtables": page.jpegtables, "jpegheader": page.keyframe.jpegheader}
        decoded = page.keyframe.decode(content, index, **options)[0]
        return None if decoded is None else decoded[0]

    def _page(self, level: int, number: int) -> Any:
        return self._layout.levels[level][number]

    def _description(self) -> str:
        return str(self._file.pages[0].description)

    def _to_bytes(self, pixels: NDArray[Any]) -> Pixels:
        if pixels.dtype == np.uint8:
            return pixels
        highest = 2**self._layout.bits - 1
        scaled = (pixels.astype(np.uint32) * 510 + highest) // (2 * highest)  # rounded
        return scaled.clip(max=WHITE).astype(np.uint8)

    def _check_segments(self) -> None:
        """Refuse images that are stored in one piece that is too large to decode for a region."""
        keyframe = self._page(0, 0).keyframe
        size = int(np.prod(keyframe.chunks)) * keyframe.dtype.itemsize
        if size > SEGMENT:
            raise SlideFileError(
                f"`slide` must be stored in tiles or in strips of at most {SEGMENT} bytes, got {size} "
                f"(convert it: {CONVERT}).",
                container=self.container,
                shape=self.sizes[0],
            )


def _on_white(pixels: Pixels, premultiplied: bool) -> Pixels:
    """Blend red, green, blue and alpha with white."""
    color, alpha = pixels[..., :3].astype(np.uint16), pixels[..., 3:4].astype(np.uint16)
    if not premultiplied:
        color = (color * alpha + WHITE // 2) // WHITE
    return (color + (WHITE - alpha)).clip(max=WHITE).astype(np.uint8)


def _paste(target: NDArray[Any], segment: NDArray[Any] | None, top: int, left: int) -> None:
    """Copy the part of ``segment`` that lies in ``target``, whose corner is at (0, 0)."""
    if segment is None:
        return
    height, width = segment.shape[:2]
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + height, target.shape[0]), min(left + width, target.shape[1])
    target[y0:y1, x0:x1] = segment[y0 - top : y1 - top, x0 - left : x1 - left]


def _between(xml: str, name: str) -> float | None:
    """Return the number, such as 20 in ``<Objective>20x</Objective>``, of an element of XML."""
    text = xml.partition(f"<{name}>")[2].partition("<")[0]
    digits = text.strip().lower().rstrip("x")
    try:
        return float(digits)
    except ValueError:
        return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings of ``tifffile``, which contain the name of the file."""
    logger = logging.getLogger("tifffile")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
