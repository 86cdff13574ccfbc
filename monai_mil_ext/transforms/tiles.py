"""From a whole slide to the bag of its tiles."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.utils.enums import TransformBackends
from numpy.typing import NDArray
from torch import Tensor

from monai_mil_ext.data import OtsuTissue, SlideFile, SlideTiles, TileGrid, tissue_share
from monai_mil_ext.utils import BagKeys, EmptyBagError, check_positive

__all__ = ["TileBag", "TileBagD", "TileBagDict", "TileBagd", "TilesOfSlide"]


class TilesOfSlide(NamedTuple):
    """The tiles of a slide, unread, and what leads back to its pixels."""

    bag: SlideTiles  # (N, 3, t, t), each read when it is asked for
    coords: Tensor  # (N, 2) int64, upper left corners (x, y)
    tissue: Tensor  # (N,) share of each tile that is tissue
    tile_size: float  # of coords: height and width of a tile in pixels of level 0
    unit: str  # of coords and tile_size: px, pixels of level 0
    mpp: float | None  # micrometres per pixel of the bag's tiles
    spatial_shape: Tensor  # (2,) width and height of the slide in pixels of level 0


class TileBag(Transform):
    """Cut the tissue of a slide into tiles: coordinates now, pixels when they are asked for.

    Of the slide only a thumbnail is read, and that in blocks. Tiles come row by row. A cap on their number is
    :py:class:`monai_mil_ext.transforms.RandSampleInstancesd` on ``("image", "coords", "tissue")``, before any pixel.

    Args:
        grid: size, resolution, overlap and edges of the tiles.
        tissue: maps a thumbnail (h, w, 3) of bytes to a mask (h, w), True for tissue; False takes all tiles, None is
            :py:class:`monai_mil_ext.data.OtsuTissue`.
        min_tissue: the share of a tile, 0 to 1, that must be tissue; with 0 any is enough.
        thumbnail_size: longer side of the thumbnail, at most, in pixels.
        slide_mpp: micrometres per pixel of level 0, instead of what the file says; see ``__call__``.
        reader: see :py:class:`monai_mil_ext.data.SlideFile`.
        dtype: see :py:class:`monai_mil_ext.data.SlideTiles`.

    Raises:
        ValueError: when an option is not allowed, or ``tissue`` gives no mask of the thumbnail.
        FileNotFoundError: when there is no such slide.
        SlideFileError: when the slide can't be read, or doesn't tell what the grid needs.
        EmptyBagError: when no tile has enough tissue.
    """

    backend = [TransformBackends.NUMPY]

    def __init__(
        self,
        grid: TileGrid | None = None,
        tissue: Callable[[NDArray[np.uint8]], NDArray[np.bool_]] | bool | None = None,
        min_tissue: float = 0.25,
        thumbnail_size: int = 2048,
        slide_mpp: float | None = None,
        reader: str = "openslide",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        check_positive(thumbnail_size=thumbnail_size)
        if not 0 <= min_tissue <= 1:
            raise ValueError(f"`min_tissue` must be from 0 to 1, got {min_tissue!r}.")
        if tissue is True or not (tissue is None or tissue is False or callable(tissue)):
            raise ValueError(f"`tissue` must be a function of a thumbnail, None or False, got {tissue!r}.")
        self.grid = TileGrid() if grid is None else grid
        self.tissue = OtsuTissue() if tissue is None else tissue
        self.min_tissue = min_tissue
        self.thumbnail_size = thumbnail_size
        self.slide_mpp = slide_mpp
        self.reader = reader
        self.dtype = dtype
        SlideTiles("", np.empty((0, 2), dtype=np.int64), self.grid.tile_size, 1.0, reader, dtype)  # which checks both

    def __call__(self, slide: str | os.PathLike[str] | SlideFile, slide_mpp: float | None = None) -> TilesOfSlide:
        """Find the tiles of a slide.

        Args:
            slide: its path, or the open slide, which stays open and which the bag then reads.
            slide_mpp: resolution of this slide, overriding that of the transform; not for an open slide, which has one.
        """
        if isinstance(slide, SlideFile):
            return self._find(slide, slide)
        with SlideFile(slide, self.reader, self.slide_mpp if slide_mpp is None else slide_mpp) as opened:
            return self._find(opened, opened.path)

    def _find(self, slide: SlideFile, source: os.PathLike[str] | SlideFile) -> TilesOfSlide:
        scale = self.grid.scale(slide)
        corners = self.grid.corners(slide)
        share = self._share(slide, corners, self.grid.tile_size * scale)
        enough = (share >= self.min_tissue) & (share > 0)
        if not enough.any():
            raise EmptyBagError(
                f"`slide` must have a tile with a share of tissue of {self.min_tissue:g} or more, got at most "
                f"{share.max():.3g} among {len(share)} tiles of {slide.name!r}."
            )
        corners = corners[enough]
        return TilesOfSlide(
            bag=SlideTiles(source, corners, self.grid.tile_size, scale, self.reader, self.dtype),
            coords=torch.from_numpy(corners),
            tissue=torch.from_numpy(share[enough]).float(),
            tile_size=self.grid.tile_size * scale,
            unit="px",
            mpp=None if slide.mpp is None else slide.mpp * scale,
            spatial_shape=torch.tensor(slide.size),
        )

    def _share(self, slide: SlideFile, corners: NDArray[np.int64], edge: float) -> NDArray[np.float64]:
        if self.tissue is False:
            return np.ones(len(corners))
        image, downsample = slide.thumbnail(self.thumbnail_size)
        mask = np.asarray(self.tissue(image))
        if mask.shape != image.shape[:2]:
            raise ValueError(f"`tissue` must give a mask of shape {image.shape[:2]}, got {mask.shape}.")
        return tissue_share(mask.astype(bool), corners, edge, downsample)


class TileBagd(MapTransform):
    """Dictionary form of :py:class:`TileBag`: the unread bag takes the place of the slide's path.

    Beside it stand ``coords``, ``tissue``, ``tile_size``, ``unit``, ``mpp`` and ``spatial_shape``, see
    :py:class:`TilesOfSlide`. Where the item has a ``slide_mpp``, that is the resolution of its slide.

    Args:
        keys: the slide; an item has one, as there is one set of coordinates.
        grid: see :py:class:`TileBag`.
        tissue: see :py:class:`TileBag`.
        min_tissue: see :py:class:`TileBag`.
        thumbnail_size: see :py:class:`TileBag`.
        slide_mpp: see :py:class:`TileBag`.
        reader: see :py:class:`TileBag`.
        dtype: see :py:class:`TileBag`.
        allow_missing_keys: whether to pass over a key that is not there.

    Raises:
        ValueError: when an item has several slides.
    """

    backend = TileBag.backend

    def __init__(
        self,
        keys: KeysCollection,
        grid: TileGrid | None = None,
        tissue: Callable[[NDArray[np.uint8]], NDArray[np.bool_]] | bool | None = None,
        min_tissue: float = 0.25,
        thumbnail_size: int = 2048,
        slide_mpp: float | None = None,
        reader: str = "openslide",
        dtype: torch.dtype = torch.float32,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.to_tiles = TileBag(grid, tissue, min_tissue, thumbnail_size, slide_mpp, reader, dtype)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Put the tiles of the slide in its place."""
        d = dict(data)
        present = list(self.key_iterator(d))
        if len(present) > 1:
            raise ValueError(f"`keys` must name one slide of an item, got {present}.")
        for key in present:
            tiles = self.to_tiles(d[key], slide_resolution(d))
            d.update({name: value for name, value in tiles._asdict().items() if name != "bag"})
            d[key] = tiles.bag
        return d


def slide_resolution(item: Mapping[Any, Any]) -> float | None:
    """Return the ``slide_mpp`` of an item as a number, which a table gives as text; None where there is none."""
    value = item.get(BagKeys.SLIDE_MPP)
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        raise ValueError(f"`{BagKeys.SLIDE_MPP}` must be a number, got {value!r}.") from None


TileBagD = TileBagDict = TileBagd
