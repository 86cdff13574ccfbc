"""Lazily read tiles of a slide as a bag."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from monai_mil_ext.utils import check_choice, check_positive, check_positive_number, optional_dependency

from .slide_file import SlideFile, to_pil
from .slide_readers import READERS, WHITE, Pixels

__all__ = ["SlideTiles"]

Image = optional_dependency("", "PIL.Image")

SAME = 1e-6  # pixels; below this offset a tile is read without resampling
FINER = 1.01  # largest ratio by which a level may be coarser than the tile


class SlideTiles(Dataset[Tensor]):
    """Dataset of tiles at given coordinates of a slide; each tile is read on access and not cached.

    An integer index returns a tile (3, t, t), a slice returns tiles (n, 3, t, t), an array of indices returns a bag of
    these tiles, unread. It can be used with a :py:class:`ChunkLoader` or a ``DataLoader``, whose workers open the slide
    themselves, with :py:class:`monai_mil_ext.inferers.BagInferer`, which reads a chunk at a time, and with
    :py:class:`monai_mil_ext.transforms.RandSampleInstancesd`.

    A tile is resampled with subpixel accuracy from the coarsest level that is not coarser than the tile, by a triangle
    filter that extends one pixel of the tile to either side. The filter uses pixels around the tile too, so that
    adjacent tiles have no seams. A tile that coincides with pixels of a level is read without resampling.

    Args:
        path: path of the slide, or the open slide, which this process then reads instead of opening it again.
        coords: (N, 2), upper left corners (x, y) in pixels of level 0.
        tile_size: height and width t of a tile.
        scale: pixels of level 0 per pixel of a tile, along a side.
        reader: see :py:class:`SlideFile`.
        dtype: ``torch.uint8`` for values up to 255, or a floating-point type for values up to 1.

    Raises:
        ValueError: when an argument is invalid.
        SlideFileError: when a tile can't be read.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | SlideFile,
        coords: NDArray[np.int64] | Tensor,
        tile_size: int,
        scale: float = 1.0,
        reader: str = "openslide",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        check_positive(tile_size=tile_size)
        check_choice("reader", reader, READERS)
        check_positive_number(scale=scale)
        if dtype != torch.uint8 and not dtype.is_floating_point:
            raise ValueError(f"`dtype` must be torch.uint8 or a floating type, got {dtype}.")
        self.path = os.fspath(path.source if isinstance(path, SlideFile) else path)
        self.coords = np.asarray(coords, dtype=np.int64)
        if self.coords.ndim != 2 or self.coords.shape[1] != 2:
            raise ValueError(f"`coords` must have shape (N, 2), got {self.coords.shape}.")
        self.tile_size = tile_size
        self.scale = float(scale)
        self.reader = path.reader if isinstance(path, SlideFile) else reader
        self.dtype = dtype
        self._slide: SlideFile | None = path if isinstance(path, SlideFile) else None
        self._process = os.getpid()

    def __len__(self) -> int:
        return len(self.coords)

    def __getitem__(self, index: Any) -> Any:
        """Return the tile, the tiles or the bag at ``index``; see the class."""
        if isinstance(index, slice):
            return self._tiles(self.coords[index])
        if np.ndim(index):
            return self._subset(np.asarray(index))
        return self._tiles(self.coords[int(index)][None])[0]  # NumPy raises IndexError beyond the end

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        """Return whether ``other`` reads the same pixels."""
        if not isinstance(other, SlideTiles):
            return NotImplemented
        settings, others = ((b.path, b.tile_size, b.scale, b.reader, b.dtype) for b in (self, other))
        return settings == others and np.array_equal(self.coords, other.coords)

    __hash__ = None  # type: ignore[assignment]  # its coordinates are mutable

    def __repr__(self) -> str:
        """Return a representation without the path, which may identify a patient."""
        return f"SlideTiles({len(self)} tiles of {self.tile_size} pixels)"

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the open slide, so that another process opens it itself."""
        return {**self.__dict__, "_slide": None, "_process": -1}

    def _subset(self, index: NDArray[Any]) -> SlideTiles:
        return SlideTiles(self.path, self.coords[index], self.tile_size, self.scale, self.reader, self.dtype)

    def close(self) -> None:
        """Close the slide; it is opened again at the next access."""
        if self._slide is not None:
            self._slide.close()
            self._slide = None

    def _open(self) -> SlideFile:
        # a fork would share the position in the file
        if self._slide is None or self._slide.closed or self._process != os.getpid():
            self._slide, self._process = SlideFile(self.path, self.reader), os.getpid()
        return self._slide

    def _tiles(self, corners: NDArray[np.int64]) -> Tensor:
        pixels = np.empty((len(corners), 3, self.tile_size, self.tile_size), dtype=np.uint8)
        for tile, (x, y) in zip(pixels, corners.tolist(), strict=True):
            tile[:] = self._pixels(x, y).transpose(2, 0, 1)
        tiles = torch.from_numpy(pixels)
        return tiles if self.dtype == torch.uint8 else tiles.to(self.dtype) / WHITE

    def _pixels(self, x: int, y: int) -> Pixels:
        slide, size = self._open(), self.tile_size
        if not all(-size * self.scale < start < side for start, side in zip((x, y), slide.size, strict=True)):
            raise slide.error(f"`coords` must lie in the slide, got ({x}, {y}) for {slide.size}.")
        level = max(k for k, down in enumerate(slide.downsamples) if down <= max(self.scale * FINER, 1.0))
        down = slide.downsamples[level]
        ratio, left, top = self.scale / down, x / down, y / down
        if all(abs(v - round(v)) < SAME for v in (left, top)) and abs(ratio - 1) * size < SAME:
            return slide.read(level, round(left), round(top), size, size)
        limits = slide.level_size(level)
        (x0, x1), (y0, y1) = (
            _span(start, size * ratio, ratio, limit) for start, limit in zip((left, top), limits, strict=True)
        )
        region = to_pil(slide.read(level, x0, y0, x1 - x0, y1 - y0))
        right, bottom = min(left + size * ratio - x0, x1 - x0), min(top + size * ratio - y0, y1 - y0)
        box = (left - x0, top - y0, right, bottom)
        return np.asarray(region.resize((size, size), Image.Resampling.BILINEAR, box))


def _span(start: float, length: float, ratio: float, limit: int) -> tuple[int, int]:
    """Return the range of pixels to read along an axis: the tile and the filter's margin, within the slide."""
    margin = math.ceil(max(ratio, 1.0)) + 1
    end = math.ceil(start + length - SAME)
    begin = math.floor(start)
    return min(begin, max(0, begin - margin)), max(end, min(end + margin, limit))
