"""Transform from a slide or its feature file to the bag of features of a network."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils.enums import TransformBackends

from monai_mil_ext.data import SlideCache, SlideFile
from monai_mil_ext.data.cohorts.case_lists import is_feature_file
from monai_mil_ext.data.slides.slide_match import slide_difference
from monai_mil_ext.data.slides.slide_resolution import NOMINAL
from monai_mil_ext.transforms.bags.load_bag import LoadBag
from monai_mil_ext.utils import BagKeys, check_positive, check_positive_number
from monai_mil_ext.utils.exceptions import case_error
from monai_mil_ext.utils.privacy import describe_case_error

from .tile_bag import TileBagd, slide_magnification, slide_resolution

__all__ = ["SlideFeaturesD", "SlideFeaturesDict", "SlideFeaturesd"]

MAGNIFICATION = "level0_magnification"  # of the slide, as TRIDENT calls it
COLUMNS = [
    str(key) for key in (BagKeys.COORDS, BagKeys.TILE_SIZE, BagKeys.UNIT, BagKeys.SPATIAL_SHAPE, BagKeys.SLIDE_MPP)
]
FACTS = [MAGNIFICATION, "mpp", "input_size", "format", "tile_size_estimated"]
NO_COORDS = "the features come without coordinates"
ESTIMATED = "the size of a tile was estimated from the distance of the tiles"
UNCHECKED = "the features state neither size nor resolution of their slide: only coordinates were compared with it"
OF_PLANE = "the features do not state the size of their slide: tiles were placed in its plane, not its scanned region"
OF_BOUNDS = "the features count tiles from the scanned region of the slide, not from its plane"
TOOLS = {"trident": "TRIDENT", "clam": "CLAM", "stamp": "STAMP", "asmil": "ASMIL"}  # others are named as their format


class SlideFeaturesd(MapTransform):
    """Replace the path of a slide or of its feature file by the features (N, F) of its tiles.

    A slide is cut into tiles by ``tiles`` and encoded by ``encode``; a feature file in any format of
    :py:class:`LoadBag` is loaded. If known, ``coords`` (N, 2) and ``tile_size`` in the ``unit`` ``"px"`` (pixels of
    level 0), ``spatial_shape`` (width and height of the slide), ``slide_mpp``, ``container`` and ``notes`` are added;
    for a slide also its path as ``source``, its ``bounds``, and a ``thumbnail`` (h, w, 3) of bytes with its
    ``thumbnail_downsample`` (pixels of level 0 per pixel) and ``thumbnail_origin``, read while the slide is open.
    Coordinates in micrometers are converted to pixels if ``slide_mpp`` is known.

    An item with a feature file and the path of its slide as ``source`` gets what the slide shows, too. If the slide
    can't be read, or size, resolution or coordinates of the features are not those of the slide, ``source`` is removed
    and the reason added as ``pictures_missing``, so that nothing is drawn in a wrong place. Coordinates that come with
    the size of the ``bounds`` as that of the slide count from there, and are converted to those of the whole slide.

    ``slide_mpp`` is that of the item or option, else that of the feature file, else that of the slide, else derived
    from the nominal magnification in the feature file (40 is 0.25), which ``notes`` (sentences joined by
    ``"; "``) then say.

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
        slides = SlideCache() if self.slides is None else self.slides
        try:
            for key in self.key_iterator(d):
                d = self._load(d, key, slides) if is_feature_file(d[key]) else self._encode(d, key, slides)
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
        d[key] = slide = self._open(slides, source, d, slide_resolution(d))
        d = self.tiles(d)
        mpp = d.pop("mpp")
        if mpp is not None:
            d[BagKeys.SLIDE_MPP] = mpp / d[key].scale
        d.pop("tissue")
        return {**self.encode(d), BagKeys.SOURCE: source, **self._views(slide)}

    def _load(self, d: dict[Hashable, Any], key: Hashable, slides: SlideCache) -> dict[Hashable, Any]:
        file = self.load(d[key], keys=[*COLUMNS, *FACTS], allow_missing_keys=True, slide=d.get("slide"))
        d[key] = file.pop("features")
        d[BagKeys.CONTAINER] = f"{TOOLS.get(file['format'], file['format'])} features"
        if BagKeys.COORDS not in file:
            return _without_pictures(d, NO_COORDS) if BagKeys.SOURCE in d else d
        given, stated = slide_resolution(d), _stated_mpp(file)
        slide, views, reason = self._look_at_slide(d, given, slides)
        mpp, notes = _resolution(given, stated, slide, file)
        if mpp is not None:
            d[BagKeys.SLIDE_MPP] = mpp
        for name in {BagKeys.UNIT, BagKeys.SPATIAL_SHAPE} & file.keys() - d.keys():  # those of the item take precedence
            d[name] = file[name]
        d.setdefault(BagKeys.COORDS, file[BagKeys.COORDS][:, :2].double())
        if BagKeys.TILE_SIZE in file:
            d.setdefault(BagKeys.TILE_SIZE, float(file[BagKeys.TILE_SIZE]))
        if d.get(BagKeys.UNIT) == "um" and mpp is not None:
            d = _in_pixels(d)
        if file.get("tile_size_estimated"):
            notes.append(ESTIMATED)
        if slide is not None:
            moved, origin = _counted_from_plane(d, slide)
            reason = reason or _difference(slide, {**d, **moved}, file, given, stated)
            notes += [] if reason else [*origin, *_unchecked(file, stated)]
            d.update({} if reason else {**moved, **views})
        d.update({str(BagKeys.NOTES): "; ".join(notes)} if notes else {})
        return _without_pictures(d, reason) if reason else d

    def _look_at_slide(
        self, d: Mapping[Hashable, Any], mpp: float | None, slides: SlideCache
    ) -> tuple[SlideFile | None, dict[Hashable, Any], str]:
        """Open the slide of a feature file, and return it with what it shows, or the reason why that fails."""
        if BagKeys.SOURCE not in d:
            return None, {}, ""
        try:
            slide = self._open(slides, d[BagKeys.SOURCE], d, mpp)
            return slide, {str(BagKeys.SPATIAL_SHAPE): torch.tensor(slide.size), **self._views(slide)}, ""
        except Exception as error:
            cause = case_error(error)
            if cause is None:
                raise
            return None, {}, f"the slide can't be read: {describe_case_error(cause, d, 'the slide').removesuffix('.')}"

    def _open(self, slides: SlideCache, source: Any, d: Mapping[Hashable, Any], mpp: float | None) -> SlideFile:
        options, magnification = self.tiles.to_tiles, slide_magnification(d)
        return slides.open(
            source,
            options.reader,
            options.slide_mpp if mpp is None else mpp,
            options.magnification if magnification is None else magnification,
        )

    def _views(self, slide: SlideFile) -> dict[Hashable, Any]:
        """Return bounds and thumbnail of an open slide."""
        views: dict[Hashable, Any] = {str(BagKeys.BOUNDS): torch.tensor(slide.bounds)}
        if self.thumbnail_size is not None:
            thumbnail = slide.thumbnail(self.thumbnail_size)
            views[str(BagKeys.THUMBNAIL)] = torch.from_numpy(thumbnail.image)
            views[str(BagKeys.THUMBNAIL_DOWNSAMPLE)] = thumbnail.downsample
            views[str(BagKeys.THUMBNAIL_ORIGIN)] = torch.tensor(thumbnail.origin, dtype=torch.float64)
        return views


def _stated_mpp(file: Mapping[str, Any]) -> float | None:
    """Return the micrometers per pixel of level 0 that a feature file states, or those of its tiles determine."""
    if file.get(BagKeys.SLIDE_MPP) is not None:
        return float(file[BagKeys.SLIDE_MPP])
    mpp, pixels, edge = (file.get(name) for name in ("mpp", "input_size", BagKeys.TILE_SIZE))
    if mpp is None or pixels is None or edge is None or file.get(BagKeys.UNIT) != "px":
        return None
    return float(mpp) * float(pixels) / float(edge)


def _resolution(
    given: float | None, stated: float | None, slide: SlideFile | None, file: Mapping[str, Any]
) -> tuple[float | None, list[str]]:
    """Return the micrometers per pixel of level 0 from the best source, with a note if it is a nominal one."""
    known = [mpp for mpp in (given, stated, None if slide is None else slide.mpp) if mpp is not None]
    if known or file.get(MAGNIFICATION) is None:
        return (known[0] if known else None), []
    magnification = float(file[MAGNIFICATION])
    mpp = NOMINAL / magnification
    return mpp, [f"slide_mpp {mpp:.3g} is derived from the magnification {magnification:g}x that the features state"]


def _difference(
    slide: SlideFile, d: Mapping[Hashable, Any], file: Mapping[str, Any], given: float | None, stated: float | None
) -> str:
    """Return why features are not those of a slide; a resolution that is given overrides what they state."""
    if BagKeys.TILE_SIZE not in d:
        return "the features come without the size of a tile"
    if d.get(BagKeys.UNIT) != "px":
        return f"the unit of the coordinates is {d.get(BagKeys.UNIT)!r}, and `slide_mpp` is not known"
    size = d.get(BagKeys.SPATIAL_SHAPE)
    sides = None if size is None else [int(side) for side in size]
    nominal = None if file.get(MAGNIFICATION) is None else float(file[MAGNIFICATION])
    resolution = {"mpp": stated, "magnification": nominal} if given is None else {}
    return slide_difference(slide, d[BagKeys.COORDS].numpy(), sides, tile_size=d[BagKeys.TILE_SIZE], **resolution)


def _counted_from_plane(d: Mapping[Hashable, Any], slide: SlideFile) -> tuple[dict[Hashable, Any], list[str]]:
    """Return coordinates that count from the plane of a slide, if they come with the size of its bounds, and a note."""
    size = d.get(BagKeys.SPATIAL_SHAPE)
    if slide.bounds[2:] == slide.size or d.get(BagKeys.UNIT) != "px":
        return {}, []
    if size is None:
        return {}, [OF_PLANE]
    if tuple(int(side) for side in size) != slide.bounds[2:]:
        return {}, []
    coords = d[BagKeys.COORDS] + torch.tensor(slide.bounds[:2], dtype=torch.float64)
    return {str(BagKeys.COORDS): coords, str(BagKeys.SPATIAL_SHAPE): torch.tensor(slide.size)}, [OF_BOUNDS]


def _unchecked(file: Mapping[str, Any], stated: float | None) -> list[str]:
    known = file.get(BagKeys.SPATIAL_SHAPE) is not None or stated is not None or file.get(MAGNIFICATION) is not None
    return [] if known else [UNCHECKED]


def _without_pictures(d: Mapping[Hashable, Any], reason: str) -> dict[Hashable, Any]:
    return {**{key: value for key, value in d.items() if key != BagKeys.SOURCE}, str(BagKeys.PICTURES_MISSING): reason}


def _in_pixels(d: dict[Hashable, Any]) -> dict[Hashable, Any]:
    """Convert micrometers to pixels of level 0."""
    for name in {BagKeys.COORDS, BagKeys.TILE_SIZE} & set(d):
        d[name] = d[name] / d[BagKeys.SLIDE_MPP]
    d[BagKeys.UNIT] = "px"
    return d


SlideFeaturesD = SlideFeaturesDict = SlideFeaturesd
