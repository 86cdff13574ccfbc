"""Reader of whole-slide images by region."""

from __future__ import annotations

import math
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from monai_mil_ext.utils import check_choice, check_local, check_positive, check_positive_number, optional_dependency
from monai_mil_ext.utils.remote import as_path, is_remote, local_copy

from .dicom_slides import slide_file_of_folder
from .slide_errors import SlideFileError, reading_errors
from .slide_readers import READERS, WHITE, Pixels, SlideReader, open_reader
from .slide_resolution import NOMINAL, UNEQUAL, square_mpp

__all__ = ["SlideFile", "Thumbnail"]

Image = optional_dependency("", "PIL.Image")

BLOCK = 2048  # pixels along a side


class Thumbnail(NamedTuple):
    """Downsampled image of the scanned region of a slide."""

    image: Pixels  # (h, w, 3)
    downsample: float  # pixels of level 0 per pixel of the image
    origin: tuple[float, float] = (0.0, 0.0)  # (x, y) of its upper left corner in pixels of level 0


class SlideFile:
    """Whole-slide image, read by region.

    Pixels outside of the slide and transparent pixels are white, and 16 bits per channel are converted to 8. The file
    is closed by ``close()``, at the end of a ``with`` block, and on garbage collection.

    - ``"openslide"`` reads the files of scanners and DICOM through :py:class:`monai.data.WSIReader`. What OpenSlide
      does not open, or reads without its levels and resolution (OME-TIFF, QPTIFF, levels as SubIFDs, big-endian or
      striped TIFF), is read by tifffile.
    - ``"tifffile"`` decodes the tiles or strips of a TIFF file that a region needs.
    - ``"cucim"`` is left to MONAI.

    Args:
        path: path of the slide, or of a folder with the DICOM files of one slide, see :py:func:`find_dicom_slides`; or
            its address in an object store, of which a copy is read.
        reader: ``"openslide"``, ``"tifffile"`` or ``"cucim"``.
        mpp: micrometers per pixel of level 0, if missing or wrong in the file.
        magnification: magnification of level 0, such as 40, if missing or wrong in the file; if neither the file nor
            ``mpp`` states a resolution, it is 10 micrometers divided by this magnification.

    Raises:
        FileNotFoundError: when there is no such file.
        SlideFileError: when the file is not a readable slide, or a region of it is damaged; the message contains no
            name.

    Attributes:
        name: name of the file.
        reader: name of the reader.
        container: kind of file, such as ``"Aperio SVS"``.
        notes: sentences that state what was done while reading, such as that the largest of several images was read.
        size: (width, height) in pixels of level 0.
        bounds: (x, y, width, height) of the scanned region in pixels of level 0; all of it if the file states none.
        downsamples: downsample of each level, starting with 1.0.
        mpp: micrometers per pixel of level 0, or ``None``.
        magnification: magnification of level 0, or ``None``.
    """

    _slide: SlideReader | None = None  # so that close() works if the constructor fails early

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
        self._copy = ExitStack()
        address = as_path(path) if is_remote(path) else None
        if address is not None:
            path = self._copy.enter_context(local_copy(address))
        check_local(slide=path)
        self.path = _existing_file(Path(path))
        self.source = self.path if address is None else address  # what another process opens
        self.name = self.source.name
        self.reader = reader
        with reading_errors(self.path):
            self._slide = slide = open_reader(self.path, reader)
        self.container, self.notes = slide.container, slide.notes
        self.size, self.bounds, self.downsamples = slide.sizes[0], slide.bounds, slide.downsamples
        self._sizes = slide.sizes
        try:
            self.magnification = slide.magnification() if magnification is None else float(magnification)
            self.mpp = self._find_mpp(slide, mpp, magnification)
        except BaseException as error:
            if isinstance(error, SlideFileError):
                error.add_facts(self.container, self.size)
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
            self._copy.close()

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

    def error(self, message: str, option: str = "") -> SlideFileError:
        """Return an error that states what is known of this slide; ``option`` is the command-line option that helps."""
        spacing = () if self.mpp is None else (self.mpp, self.mpp)
        return SlideFileError(message, option, self.container, self.size, spacing)

    def _find_mpp(self, slide: SlideReader, given: float | None, magnification: float | None) -> float | None:
        """Return the given resolution, that of the file, or that of the given magnification."""
        sides = slide.mpp()
        if given is not None:
            stated = None if sides is None else sum(sides) / len(sides)
            if stated is not None and abs(stated - given) > UNEQUAL * given:
                self.notes.append(f"{given:g} micrometers per pixel were given; the file states {stated:.4g}.")
            return float(given)
        mpp = square_mpp(sides)
        if mpp is None and magnification is not None:
            mpp = NOMINAL / magnification
            self.notes.append(f"{mpp:g} micrometers per pixel follow from the given magnification {magnification:g}.")
        return mpp

    def _read(self, level: int, left: int, top: int, width: int, height: int) -> Pixels:
        if self._slide is None:
            raise ValueError("`slide` must be open, got one that was closed.")
        try:
            with reading_errors(self.path, f"be readable at level {level}, x {left}, y {top}"):
                return self._slide.read(level, left, top, width, height)
        except SlideFileError as error:
            error.add_facts(self.container, self.size, () if self.mpp is None else (self.mpp, self.mpp))
            raise


def _existing_file(path: Path) -> Path:
    if os.path.isdir(path):
        return slide_file_of_folder(path)
    if not os.path.isfile(path):
        raise FileNotFoundError("`slide` must be a file that exists, got none.")
    return path


def to_pil(pixels: Pixels) -> Any:
    """Convert pixels (h, w, 3) to a Pillow image."""
    contiguous = np.empty(pixels.shape, dtype=np.uint8)
    for channel in range(3):  # NumPy copies strided channels faster than strided pixels of three values
        contiguous[..., channel] = pixels[..., channel]
    return Image.fromarray(contiguous)
