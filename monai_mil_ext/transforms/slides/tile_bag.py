"""Transforms that cut a whole slide into a bag of tiles."""

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

from monai_mil_ext.data import (
    OtsuTissue,
    SlideFile,
    SlideTiles,
    TileGrid,
    TissueMap,
    find_tissue,
    fingerprint,
    tissue_fraction,
)
from monai_mil_ext.utils import BagKeys, EmptyBagError, as_flag, check_positive

__all__ = ["TileBag", "TileBagD", "TileBagDict", "TileBagd", "TiledSlide"]


class TiledSlide(NamedTuple):
    """Tiles of a slide, read on access, with the geometry that leads back to its pixels."""

    bag: SlideTiles  # (N, 3, t, t), read on access
    coords: Tensor  # (N, 2) int64, upper left corners (x, y)
    tissue: Tensor  # (N,) fraction of each tile that is tissue
    tile_size: float  # of coords: height and width of a tile in pixels of level 0
    unit: str  # of coords and tile_size: px, pixels of level 0
    mpp: float | None  # micrometers per pixel of the tiles of the bag
    spatial_shape: Tensor  # (2,) width and height of the slide in pixels of level 0
    container: str = ""  # kind of file
    notes: str = ""  # sentences, joined by "; ": what was done while reading, and left out


class TileBag(Transform):
    """Cut the tissue of a slide into tiles, whose pixels are read on access.

    Only a thumbnail of the slide is read, in blocks. Tiles are in row-major order. To limit their number before any
    pixel is read, use :py:class:`monai_mil_ext.transforms.RandSampleInstancesd` with
    ``("image", "coords", "tissue")``.

    Args:
        grid: size, resolution, overlap and border handling of the tiles.
        tissue: function that maps a thumbnail (h, w, 3) of dtype uint8 to a mask (h, w), True for tissue, or to labels,
            see :py:func:`monai_mil_ext.data.find_tissue`; False takes all tiles, None uses
            :py:class:`monai_mil_ext.data.OtsuTissue`.
        min_tissue: fraction of a tile, 0 to 1, that must be tissue; 0 accepts any amount above zero.
        thumbnail_size: largest size of the longer side of the thumbnail in pixels.
        slide_mpp: micrometers per pixel of level 0 that override those of the file; see ``__call__``.
        reader: see :py:class:`monai_mil_ext.data.SlideFile`.
        dtype: see :py:class:`monai_mil_ext.data.SlideTiles`.
        magnification: magnification of level 0, such as 40, for slides that do not state their resolution.

    Raises:
        ValueError: if an option is not allowed, or ``tissue`` does not return a mask of the thumbnail.
        FileNotFoundError: if the slide does not exist.
        SlideFileError: if the slide can't be read or lacks metadata that the grid needs.
        EmptyBagError: if no tile has enough tissue.
    """

    backend = [TransformBackends.NUMPY]

    def __init__(
        self,
        grid: TileGrid | None = None,
        tissue: Callable[..., Any] | bool | None = None,
        min_tissue: float = 0.25,
        thumbnail_size: int = 2048,
        slide_mpp: float | None = None,
        reader: str = "openslide",
        dtype: torch.dtype = torch.float32,
        magnification: float | None = None,
    ) -> None:
        check_positive(thumbnail_size=thumbnail_size)
        if not 0 <= min_tissue <= 1:
            raise ValueError(f"`min_tissue` must be from 0 to 1, got {min_tissue!r}.")
        tissue = as_flag(tissue, "tissue") if isinstance(tissue, str) else tissue  # a word of a command line
        if tissue is True or not (tissue is None or tissue is False or callable(tissue)):
            raise ValueError(f"`tissue` must be a function of a thumbnail, None or False, got {tissue!r}.")
        self.grid = TileGrid() if grid is None else grid
        self.tissue = OtsuTissue() if tissue is None else tissue
        self.min_tissue = min_tissue
        self.thumbnail_size = thumbnail_size
        self.slide_mpp = slide_mpp
        self.reader = reader
        self.dtype = dtype
        self.magnification = magnification
        # checks reader and dtype
        SlideTiles("", np.empty((0, 2), dtype=np.int64), self.grid.tile_size, 1.0, reader, dtype)

    def __call__(
        self,
        slide: str | os.PathLike[str] | SlideFile,
        slide_mpp: float | None = None,
        magnification: float | None = None,
    ) -> TiledSlide:
        """Find the tiles of a slide.

        Args:
            slide: path of the slide, or the open slide, which stays open and which the bag then reads.
            slide_mpp: resolution of this slide, overriding that of the transform; ignored for an open slide.
            magnification: magnification of this slide, likewise.
        """
        if isinstance(slide, SlideFile):
            return self._find(slide, slide)
        mpp = self.slide_mpp if slide_mpp is None else slide_mpp
        power = self.magnification if magnification is None else magnification
        with SlideFile(slide, self.reader, mpp, power) as opened:
            return self._find(opened, opened.source)

    @property
    def tissue_id(self) -> str:
        """Identifier of what selects the tiles: a short hash of ``tissue`` and ``min_tissue``."""
        return f"tissue detection {fingerprint(self.tissue, self.min_tissue)[:12]}"

    def find_tissue(self, slide: SlideFile) -> TissueMap | None:
        """Return the tissue map of an open slide, or None if all tiles are taken."""
        return None if self.tissue is False else find_tissue(slide, self.tissue, self.thumbnail_size)

    def tiles(
        self, slide: SlideFile, found: TissueMap | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
        """Return corners (N, 2) and tissue fractions (N,) of all tiles, and which of them (N,) have enough tissue."""
        corners = self.grid.corners(slide)
        tissue = np.ones(len(corners))
        if found is not None:
            edge, (_, downsample, origin) = self.grid.tile_size * self.grid.scale(slide), found.thumbnail
            tissue = tissue_fraction(found.mask, corners - np.asarray(origin), edge, downsample)
        return corners, tissue, (tissue >= self.min_tissue) & (tissue > 0)

    def _find(self, slide: SlideFile, source: os.PathLike[str] | SlideFile) -> TiledSlide:
        scale, found = self.grid.scale(slide), self.find_tissue(slide)
        corners, tissue, enough = self.tiles(slide, found)
        if not enough.any():
            raise self._empty(slide, found, tissue)
        corners, tissue = corners[enough], tissue[enough]
        return TiledSlide(
            bag=SlideTiles(source, corners, self.grid.tile_size, scale, self.reader, self.dtype),
            coords=torch.from_numpy(corners),
            tissue=torch.from_numpy(tissue).float(),
            tile_size=self.grid.tile_size * scale,
            unit="px",
            mpp=None if slide.mpp is None else slide.mpp * scale,
            spatial_shape=torch.tensor(slide.size),
            container=slide.container,
            notes=_notes(slide, found),
        )

    def _empty(self, slide: SlideFile, found: TissueMap | None, tissue: NDArray[np.float64]) -> EmptyBagError:
        note = "" if found is None else found.note()
        error = EmptyBagError(
            f"`slide` must have a tile with a tissue fraction of {self.min_tissue:g} or more, got at most "
            f"{tissue.max():.3g} among {len(tissue)} tiles{note and f'; {note}'}.",
            option=found.option if found is not None and note else "",
        )
        spacing = () if slide.mpp is None else [slide.mpp] * 2
        error.add_facts(slide.container, slide.size, spacing, _notes(slide, found))
        return error


def _notes(slide: SlideFile, found: TissueMap | None) -> str:
    note = "" if found is None else found.note()
    return "; ".join([*slide.notes, *([note] if note else [])])


class TileBagd(MapTransform):
    """Dictionary form of :py:class:`TileBag`, which replaces the path of a slide by its bag.

    It adds the items ``coords``, ``tissue``, ``tile_size``, ``unit``, ``mpp``, ``spatial_shape`` and ``container``, see
    :py:class:`TiledSlide`, and its ``notes`` if there are any. Items ``slide_mpp`` and ``magnification`` override
    those of the transform.

    Args:
        keys: item with the path of a slide; only one, since there is one set of coordinates.
        grid: see :py:class:`TileBag`.
        tissue: see :py:class:`TileBag`.
        min_tissue: see :py:class:`TileBag`.
        thumbnail_size: see :py:class:`TileBag`.
        slide_mpp: see :py:class:`TileBag`.
        reader: see :py:class:`TileBag`.
        dtype: see :py:class:`TileBag`.
        magnification: see :py:class:`TileBag`.
        allow_missing_keys: whether to skip missing keys.

    Raises:
        ValueError: if an item has several slides.
    """

    backend = TileBag.backend

    def __init__(
        self,
        keys: KeysCollection,
        grid: TileGrid | None = None,
        tissue: Callable[..., Any] | bool | None = None,
        min_tissue: float = 0.25,
        thumbnail_size: int = 2048,
        slide_mpp: float | None = None,
        reader: str = "openslide",
        dtype: torch.dtype = torch.float32,
        magnification: float | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.to_tiles = TileBag(grid, tissue, min_tissue, thumbnail_size, slide_mpp, reader, dtype, magnification)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the path of the slide by its tiles."""
        d = dict(data)
        present = list(self.key_iterator(d))
        if len(present) > 1:
            raise ValueError(f"`keys` must name one slide of an item, got {present}.")
        for key in present:
            tiles = self.to_tiles(d[key], slide_resolution(d), slide_magnification(d))
            d.update({name: value for name, value in tiles._asdict().items() if name not in ("bag", "notes")})
            if tiles.notes:
                d[BagKeys.NOTES] = "; ".join(filter(None, [d.get(BagKeys.NOTES), tiles.notes]))
            d[key] = tiles.bag
        return d


def slide_resolution(item: Mapping[Any, Any]) -> float | None:
    """Return the ``slide_mpp`` of an item as a number (it is text if read from a table), or None if it is missing."""
    return _number(item, str(BagKeys.SLIDE_MPP))


def slide_magnification(item: Mapping[Any, Any]) -> float | None:
    """Return the ``magnification`` of an item as a number, or None if it is missing."""
    return _number(item, "magnification")


def _number(item: Mapping[Any, Any], name: str) -> float | None:
    value = item.get(name)
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        raise ValueError(f"`{name}` must be a number, got {value!r}.") from None


TileBagD = TileBagDict = TileBagd
