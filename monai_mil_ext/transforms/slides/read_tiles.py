"""Transform that reads the pixels of selected tiles of a slide."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import ensure_tuple_rep
from monai.utils.enums import TransformBackends
from torch import Tensor

from monai_mil_ext.data import SlideCache, SlideFileError, SlideTiles
from monai_mil_ext.utils import BagKeys, check_positive, drop_padding
from monai_mil_ext.utils.privacy import describe_case_error

__all__ = ["ReadTilesD", "ReadTilesDict", "ReadTilesd"]


class ReadTilesd(MapTransform):
    """Read the pixels of selected tiles from the slide of an item, as bytes (k, t, t, 3).

    It uses the items ``source`` (path of the slide), and ``coords`` and ``tile_size`` in pixels of level 0. An item
    without them is skipped. The slide is closed afterwards.

    Args:
        keys: indices (k,) of tiles in the bag without its padding, see :py:class:`RankInstancesd`.
        names: keys under which the pixels are stored.
        size: height and width t of a tile in pixels of the result.
        slides: the cache of :py:class:`SlideFeaturesd`, so that an open slide is not opened again.
        reader: see :py:class:`monai_mil_ext.data.SlideFile`.
        skip_unreadable: whether to skip an item with a tile that can't be read; the reason is stored as
            ``pictures_missing``.
        allow_missing_keys: whether to skip missing keys.

    Raises:
        ValueError: when ``size`` is not a positive integer.
        SlideFileError: when a tile can't be read.
    """

    backend = [TransformBackends.NUMPY]

    def __init__(
        self,
        keys: KeysCollection = (BagKeys.TOP, BagKeys.BOTTOM),
        names: KeysCollection = (BagKeys.TOP_TILES, BagKeys.BOTTOM_TILES),
        size: int = 224,
        slides: SlideCache | None = None,
        reader: str = "openslide",
        skip_unreadable: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        check_positive(size=size)
        self.names = ensure_tuple_rep(names, len(self.keys))
        self.size = size
        self.slides = SlideCache() if slides is None else slides
        self.reader = reader
        self.skip_unreadable = skip_unreadable

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Read the tiles of each key."""
        d = dict(data)
        if not {BagKeys.SOURCE, BagKeys.COORDS, BagKeys.TILE_SIZE} <= d.keys() or d.get(BagKeys.UNIT) == "um":
            return d
        try:
            return {**d, **self._tiles(d)}
        except SlideFileError as error:
            if not self.skip_unreadable:
                raise
            reason = describe_case_error(error, d, "the slide").removesuffix(".")
            return {**d, str(BagKeys.PICTURES_MISSING): f"a tile of the slide can't be read: {reason}"}
        finally:
            self.slides.close()

    def _tiles(self, d: Mapping[Hashable, Any]) -> dict[Hashable, Tensor]:
        coords = drop_padding(d[BagKeys.COORDS], d).cpu().double().round().long()
        slide = self.slides.open_pixels(d[BagKeys.SOURCE], self.reader)
        scale = float(d[BagKeys.TILE_SIZE]) / self.size
        tiles: dict[Hashable, Tensor] = {}
        for key, name in self.key_iterator(dict(d), self.names):
            bag = SlideTiles(slide, coords[d[key]], self.size, scale, dtype=torch.uint8)
            tiles[str(name)] = bag[:].permute(0, 2, 3, 1)
        return tiles


ReadTilesD = ReadTilesDict = ReadTilesd
