"""Transform that reads the pixels of selected tiles of a slide."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import ensure_tuple_rep
from monai.utils.enums import TransformBackends

from monai_mil_ext.data import SlideCache, SlideTiles
from monai_mil_ext.utils import BagKeys, check_positive, drop_padding

__all__ = ["ReadTilesD", "ReadTilesDict", "ReadTilesd"]


class ReadTilesd(MapTransform):
    """Read the pixels of selected tiles from the slide of an item, as bytes (k, t, t, 3).

    It uses the items ``source`` (path of the slide), and ``coords`` and ``tile_size`` in pixels of level 0. An item
    without ``source`` is skipped. The slide is closed afterwards.

    Args:
        keys: indices (k,) of tiles in the bag without its padding, see :py:class:`RankInstancesd`.
        names: keys under which the pixels are stored.
        size: height and width t of a tile in pixels of the result.
        slides: the cache of :py:class:`SlideFeaturesd`, so that an open slide is not opened again.
        reader: see :py:class:`monai_mil_ext.data.SlideFile`.
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
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        check_positive(size=size)
        self.names = ensure_tuple_rep(names, len(self.keys))
        self.size = size
        self.slides = SlideCache() if slides is None else slides
        self.reader = reader

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Read the tiles of each key."""
        d = dict(data)
        if BagKeys.SOURCE not in d:
            return d
        try:
            coords = drop_padding(d[BagKeys.COORDS], d).cpu().long()
            slide = self.slides.open_pixels(d[BagKeys.SOURCE], self.reader)
            scale = float(d[BagKeys.TILE_SIZE]) / self.size
            for key, name in self.key_iterator(d, self.names):
                tiles = SlideTiles(slide, coords[d[key]], self.size, scale, dtype=torch.uint8)
                d[str(name)] = tiles[:].permute(0, 2, 3, 1)
        finally:
            self.slides.close()
        return d


ReadTilesD = ReadTilesDict = ReadTilesd
