"""Transform from a slide or its feature file to the bag of features of a network."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils.enums import TransformBackends

from monai_mil_ext.data import SlideCache
from monai_mil_ext.data.cohorts.case_lists import is_feature_file
from monai_mil_ext.transforms.bags.load_bag import LoadBag
from monai_mil_ext.utils import BagKeys, check_positive, check_positive_number

from .tile_bag import TileBagd, slide_magnification, slide_resolution

__all__ = ["SlideFeaturesD", "SlideFeaturesDict", "SlideFeaturesd"]

COLUMNS = [
    str(key) for key in (BagKeys.COORDS, BagKeys.TILE_SIZE, BagKeys.UNIT, BagKeys.SPATIAL_SHAPE, BagKeys.SLIDE_MPP)
]


class SlideFeaturesd(MapTransform):
    """Replace the path of a slide or of its feature file by the features (N, F) of its tiles.

    A slide is cut into tiles by ``tiles`` and encoded by ``encode``; a feature file in any format of
    :py:class:`LoadBag` is loaded. If known, ``coords`` (N, 2) and ``tile_size`` in the ``unit`` ``"px"`` (pixels of
    level 0), ``spatial_shape`` (width and height of the slide) and ``slide_mpp`` are added; for a slide also its path
    as ``source``, and a ``thumbnail`` (h, w, 3) of bytes with its ``thumbnail_downsample`` (pixels of level 0 per
    pixel), read while the slide is open. Coordinates in micrometers are converted to pixels if ``slide_mpp`` is known.

    Args:
        keys: path of the slide or feature file, a single key.
        tiles: transform from the path of a slide to its bag of tiles.
        encode: transform from tiles to features; None if there are feature files only.
        slide_mpp: micrometers per pixel of level 0; that of an item takes precedence, and both override the file.
        thumbnail_size: largest size of the longer side of the thumbnail in pixels; None reads no thumbnail.
        slides: cache that keeps the slide open for later transforms; by default the slide is closed.
        allow_missing_keys: whether to skip missing keys.

    Raises:
        ValueError: when a slide must be encoded but ``encode`` is None, ``slide_mpp`` is not a positive number, or
            there are several keys.

    Example:
        >>> from monai_mil_ext.data import write_bag
        >>> arrays = {"features": torch.ones(3, 4), "coords": torch.tensor([[0, 0], [64, 0], [0, 64]])}
        >>> write_bag("a.h5", arrays, {"unit": "px", "tile_size": 64.0})
        >>> bag = SlideFeaturesd("image")({"image": "a.h5"})
        >>> tuple(bag["image"].shape), bag["tile_size"], bag["unit"]
        ((3, 4), 64.0, 'px')
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        keys: KeysCollection,
        tiles: TileBagd | None = None,
        encode: Callable[[dict[Hashable, Any]], dict[Hashable, Any]] | None = None,
        slide_mpp: float | None = None,
        thumbnail_size: int | None = 1024,
        slides: SlideCache | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        check_positive(keys=len(self.keys), thumbnail_size=1 if thumbnail_size is None else thumbnail_size)
        if slide_mpp is not None:
            check_positive_number(slide_mpp=slide_mpp)
        if len(self.keys) > 1:
            raise ValueError(f"`keys` must name one path of an item, got {self.keys}.")
        self.tiles = TileBagd(self.keys) if tiles is None else tiles
        self.encode = encode
        self.slide_mpp = slide_mpp
        self.thumbnail_size = thumbnail_size
        self.slides = slides
        self.load = LoadBag()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load or compute the features of the slide."""
        d = dict(data)
        if self.slide_mpp is not None:
            d.setdefault(BagKeys.SLIDE_MPP, float(self.slide_mpp))
        for key in self.key_iterator(d):
            d = self._load(d, key) if is_feature_file(d[key]) else self._read_slide(d, key)
        return d

    def _read_slide(self, d: dict[Hashable, Any], key: Hashable) -> dict[Hashable, Any]:
        slides = SlideCache() if self.slides is None else self.slides
        try:
            d = self._encode(d, key, slides)
        except BaseException:
            slides.close()
            raise
        if self.slides is None:
            slides.close()
        return d

    def _encode(self, d: dict[Hashable, Any], key: Hashable, slides: SlideCache) -> dict[Hashable, Any]:
        if self.encode is None:
            raise ValueError("`encode` must be given to compute features of a slide, got None.")
        source = str(d[key])
        options = self.tiles.to_tiles
        mpp = slide_resolution(d)
        mpp = options.slide_mpp if mpp is None else mpp
        magnification = slide_magnification(d)
        magnification = options.magnification if magnification is None else magnification
        d[key] = slide = slides.open(source, options.reader, mpp, magnification)
        d = self.tiles(d)
        mpp = d.pop("mpp")
        if mpp is not None:
            d[BagKeys.SLIDE_MPP] = mpp / d[key].scale
        d.pop("tissue")
        d = {**self.encode(d), BagKeys.SOURCE: source}
        if self.thumbnail_size is not None:
            thumbnail = slide.thumbnail(self.thumbnail_size)
            d[BagKeys.THUMBNAIL] = torch.from_numpy(thumbnail.image)
            d[BagKeys.THUMBNAIL_DOWNSAMPLE] = thumbnail.downsample
        return d

    def _load(self, d: dict[Hashable, Any], key: Hashable) -> dict[Hashable, Any]:
        columns = self.load(d[key], keys=COLUMNS, allow_missing_keys=True, slide=d.get("slide"))
        d[key] = columns.pop("features")
        if BagKeys.COORDS not in columns:
            return d
        columns[BagKeys.COORDS] = columns[BagKeys.COORDS][:, :2].double()
        for name in {BagKeys.TILE_SIZE, BagKeys.SLIDE_MPP} & set(columns):
            columns[name] = float(columns[name])
        for name in columns.keys() - d.keys():  # values of the item take precedence over those of the file
            d[name] = columns[name]
        return _in_pixels(d) if d.get(BagKeys.UNIT) == "um" and BagKeys.SLIDE_MPP in d else d


def _in_pixels(d: dict[Hashable, Any]) -> dict[Hashable, Any]:
    """Convert micrometers to pixels of level 0."""
    for name in {BagKeys.COORDS, BagKeys.TILE_SIZE} & set(d):
        d[name] = d[name] / d[BagKeys.SLIDE_MPP]
    d[BagKeys.UNIT] = "px"
    return d


SlideFeaturesD = SlideFeaturesDict = SlideFeaturesd
