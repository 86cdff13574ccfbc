"""From a slide, or a file of features of one, to the bag that a network reads."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils.enums import TransformBackends

from monai_mil_ext.data import is_feature_file
from monai_mil_ext.utils import BagKeys, check_positive

from .load_bag import LoadBag
from .tiles import SLIDE_MPP, TileBagd

__all__ = ["SlideFeaturesD", "SlideFeaturesDict", "SlideFeaturesd"]

COORDS, TILE_SIZE, UNIT, SHAPE = "coords", "tile_size", "unit", str(BagKeys.SPATIAL_SHAPE)


class SlideFeaturesd(MapTransform):
    """Put features (N, F) of its tiles in the place of a slide's path, whether they have to be made or only read.

    A slide is cut into tiles by ``tiles`` and encoded by ``encode``; a file of features, of any format that
    :py:class:`LoadBag` reads, is loaded. Beside them stand, as far as they are known, ``coords`` (N, 2) and
    ``tile_size`` in the ``unit`` ``"px"``, pixels of level 0, ``spatial_shape`` (width and height of the slide) and
    ``slide_mpp``; of a slide also ``source``, its path, for what shows pixels. Coordinates in micrometres become pixels
    where ``slide_mpp`` is known.

    Args:
        keys: the path; an item has one.
        tiles: makes the bag of tiles of a slide.
        encode: makes features of them; None where there are files of features only.
        slide_mpp: micrometres per pixel of level 0; one of an item goes before it, both go before what a file says.
        allow_missing_keys: whether to pass over a key that is not there.

    Raises:
        ValueError: when a slide is to be encoded and there is no ``encode``, or an item has several paths.

    Example:
        >>> import torch
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
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        check_positive(keys=len(self.keys))
        if len(self.keys) > 1:
            raise ValueError(f"`keys` must name one path of an item, got {self.keys}.")
        self.tiles = TileBagd(self.keys) if tiles is None else tiles
        self.encode = encode
        self.slide_mpp = slide_mpp
        self.load = LoadBag()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Read or make the features."""
        d = dict(data)
        if self.slide_mpp is not None:
            d.setdefault(SLIDE_MPP, float(self.slide_mpp))
        for key in self.key_iterator(d):
            d = self._loaded(d, key) if is_feature_file(d[key]) else self._encoded(d, key)
        return d

    def _encoded(self, d: dict[Hashable, Any], key: Hashable) -> dict[Hashable, Any]:
        if self.encode is None:
            raise ValueError("`encode` must be given to make features of a slide, got None.")
        source = str(d[key])
        d = self.tiles(d)
        mpp = d.pop("mpp")
        if mpp is not None:
            d[SLIDE_MPP] = mpp / d[key].scale
        d.pop("tissue")
        return {**self.encode(d), "source": source}

    def _loaded(self, d: dict[Hashable, Any], key: Hashable) -> dict[Hashable, Any]:
        keys = [COORDS, TILE_SIZE, UNIT, SHAPE, SLIDE_MPP]
        told = self.load(d[key], keys=keys, allow_missing_keys=True, slide=d.get("slide"))
        d[key] = told.pop("features")
        if COORDS not in told:
            return d
        told[COORDS] = told[COORDS][:, :2].double()
        for name in {TILE_SIZE, SLIDE_MPP} & set(told):
            told[name] = float(told[name])
        for name in told.keys() - d.keys():  # what was asked for goes before what the file says
            d[name] = told[name]
        return _in_pixels(d) if d.get(UNIT) == "um" and SLIDE_MPP in d else d


def _in_pixels(d: dict[Hashable, Any]) -> dict[Hashable, Any]:
    """Micrometres as pixels of level 0."""
    for name in {COORDS, TILE_SIZE} & set(d):
        d[name] = d[name] / d[SLIDE_MPP]
    d[UNIT] = "px"
    return d


SlideFeaturesD = SlideFeaturesDict = SlideFeaturesd
