"""The tiles of a slide as a bag that is read one by one."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from monai_mil_ext.utils import check_choice, check_positive

from .slide_file import READERS, WHITE, Pixels, SlideFile, SlideFileError, picture

__all__ = ["SlideTiles"]

SAME = 1e-6  # pixels: tiles that lie so close to the pixels of a level are these pixels
FINER = 1.01  # a level that is coarser than a tile by no more than this is as good


class SlideTiles(Dataset[Tensor]):
    """The tiles at given places of a slide; the pixels of each are read when it is asked for, and not kept.

    A number gives a tile (3, t, t), a slice the tiles (n, 3, t, t), an array of places the bag of these tiles, unread.
    So it goes into a :py:class:`ChunkLoader` or a ``DataLoader``, whose workers each open the slide for themselves,
    into :py:class:`monai_mil_ext.inferers.BagInferer`, which reads a chunk at a time, and through
    :py:class:`monai_mil_ext.transforms.RandSampleInstancesd`.

    A tile is resampled from the coarsest level that is no coarser than itself, from its corner and at its scale to the
    fraction of a pixel, by a triangle as wide as a pixel of the tile on either side. The triangle sees what lies
    around the tile too, so that tiles side by side have no seams. Tiles of a level's own pixels are these.

    Args:
        path: of the slide, or the open slide, which this process then reads instead of opening it again.
        coords: (N, 2), upper left corners (x, y) in pixels of level 0.
        tile_size: t, height and width of a tile.
        scale: pixels of level 0 to a pixel of a tile.
        reader: see :py:class:`SlideFile`.
        dtype: ``torch.uint8`` for values up to 255, or a floating type for values up to 1.

    Raises:
        ValueError: when the arguments are none of these.
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
        if not 0 < scale < math.inf:
            raise ValueError(f"`scale` must be positive, got {scale!r}.")
        if dtype != torch.uint8 and not dtype.is_floating_point:
            raise ValueError(f"`dtype` must be torch.uint8 or a floating type, got {dtype}.")
        self.path = os.fspath(path.path if isinstance(path, SlideFile) else path)
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

    def __getitem__(self, place: Any) -> Any:
        """The tile, the tiles or the smaller bag at ``place``; see the class."""
        if isinstance(place, slice):
            return self._tiles(self.coords[place])
        if np.ndim(place):
            return self._at(np.asarray(place))
        return self._tiles(self.coords[int(place)][None])[0]  # beyond the end NumPy raises IndexError

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        """Whether ``other`` would read the same pixels."""
        if not isinstance(other, SlideTiles):
            return NotImplemented
        one, two = ((b.path, b.tile_size, b.scale, b.reader, b.dtype) for b in (self, other))
        return one == two and np.array_equal(self.coords, other.coords)

    __hash__ = None  # type: ignore[assignment]  # it has an array that may be changed

    def __repr__(self) -> str:
        """Without the path, which may name a patient."""
        return f"SlideTiles({len(self)} tiles of {self.tile_size} pixels)"

    def __getstate__(self) -> dict[str, Any]:
        """Another process opens the slide for itself."""
        return {**self.__dict__, "_slide": None, "_process": -1}

    def _at(self, places: NDArray[Any]) -> SlideTiles:
        return SlideTiles(self.path, self.coords[places], self.tile_size, self.scale, self.reader, self.dtype)

    def close(self) -> None:
        """Close the slide until a tile is asked for again."""
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
        if not all(-size * self.scale < at < side for at, side in zip((x, y), slide.size, strict=True)):
            raise SlideFileError(f"`coords` must lie in the slide, got ({x}, {y}) for {slide.size} in {slide.name!r}.")
        level = max(k for k, down in enumerate(slide.downsamples) if down <= max(self.scale * FINER, 1.0))
        down = slide.downsamples[level]
        ratio, left, top = self.scale / down, x / down, y / down
        if all(abs(v - round(v)) < SAME for v in (left, top)) and abs(ratio - 1) * size < SAME:
            return slide.read(level, round(left), round(top), size, size)
        limits = slide.level_size(level)
        (x0, x1), (y0, y1) = (
            _span(start, size * ratio, ratio, limit) for start, limit in zip((left, top), limits, strict=True)
        )
        region = picture(slide.read(level, x0, y0, x1 - x0, y1 - y0))
        right, bottom = min(left + size * ratio - x0, x1 - x0), min(top + size * ratio - y0, y1 - y0)
        box = (left - x0, top - y0, right, bottom)
        return np.asarray(region.resize((size, size), Image.Resampling.BILINEAR, box))


def _span(start: float, length: float, ratio: float, limit: int) -> tuple[int, int]:
    """Pixels to read along an axis: the tile and what the triangle sees around it, as far as there is slide."""
    around = math.ceil(max(ratio, 1.0)) + 1
    end = math.ceil(start + length - SAME)
    begin = math.floor(start)
    return min(begin, max(0, begin - around)), max(end, min(end + around, limit))
