"""Pictures of slides: a thumbnail with the heat map, and the tiles with the most attention, as in inference."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.transforms import Compose
from numpy.typing import NDArray

from monai_mil_ext.data import FeatureCache, SlideCache, Thumbnail
from monai_mil_ext.data.cohorts.slide_lists import SLIDE_SUFFIXES
from monai_mil_ext.data.cohorts.slide_pairs import SlideFolder
from monai_mil_ext.transforms import RankInstancesd, ReadTilesd, SlideFeaturesd, TileScoresToHeatmapd
from monai_mil_ext.utils import BagKeys
from monai_mil_ext.utils.exceptions import case_error
from monai_mil_ext.visualize import attention_ratio, plot_slide_overlay, plot_tile_montage

from .scan_pictures import to_jpeg

__all__ = ["SlidePictures"]

DPI = 70
SCORES, SOURCE = str(BagKeys.SCORES), str(BagKeys.SOURCE)


class SlidePictures:
    """Function that draws the heat map of a slide and its tiles with the most attention, for the report of a study.

    A case whose slide is missing, can't be read or is not that of its features has no pictures, nor has a patient with
    several slides.

    Args:
        features: cache that made the features of the cases in this process; ``None`` if they were feature files.
        slide_dir: folder with the slides of feature files, found by name at any depth.
        slide_mpp: micrometers per pixel of level 0, if a file does not state it.
        top_k: number of tiles.

    Raises:
        FileNotFoundError: when ``slide_dir`` does not exist.
    """

    def __init__(
        self,
        features: FeatureCache | None = None,
        slide_dir: str | os.PathLike[str] | None = None,
        slide_mpp: float | None = None,
        top_k: int = 8,
    ) -> None:
        self.features = features
        self.folder = None if slide_dir is None else SlideFolder(slide_dir, SLIDE_SUFFIXES)
        slides = SlideCache()
        self.read = SlideFeaturesd("image", slide_mpp=slide_mpp, slides=slides)
        self.score = Compose(
            [
                RankInstancesd(SCORES, top_k=top_k),
                TileScoresToHeatmapd(SCORES, "heatmap", skip_unplaced=True, downsample=None, scaling="ratio"),
                ReadTilesd(BagKeys.TOP, BagKeys.TOP_TILES, slides=slides, skip_unreadable=True),
            ]
        )

    def __call__(self, item: Mapping[str, Any], attention: NDArray[Any]) -> list[bytes]:
        """Return the pictures as JPEG, or none.

        Args:
            item: item of the features of a slide.
            attention: attention (N,) of its tiles.
        """
        given = self._with_source(item)
        if given is None:
            return []
        try:
            bag = self.read(given)
            if BagKeys.THUMBNAIL not in bag or len(bag["image"]) != len(attention):
                return []
            return _draw(self.score({**bag, SCORES: torch.as_tensor(attention)}))
        except Exception as error:
            if case_error(error) is None:
                raise
            return []

    def _with_source(self, item: Mapping[str, Any]) -> dict[Hashable, Any] | None:
        """Return the item of a feature file with the path of its slide, or None if there is none."""
        path = item["image"]
        if not isinstance(path, (str, os.PathLike)):
            return None
        given = self.features.input_of(path) if self.features is not None else None
        found = [] if self.folder is None or given is not None else self.folder.find(Path(path).name)
        sources = found if given is None else [given["image"]]
        kept = (str(BagKeys.CASE_ID), "slide", str(BagKeys.SLIDE_MPP), "magnification")
        known: dict[Hashable, Any] = {k: v for k, v in {**item, **(given or {})}.items() if k in kept}
        return {**known, "image": str(path), SOURCE: str(sources[0])} if len(sources) == 1 else None


def _draw(bag: Mapping[Any, Any]) -> list[bytes]:
    """Return the heat map beside the thumbnail, and the tiles with the most attention."""
    figures = []
    if BagKeys.HEATMAP in bag:
        origin = tuple(bag[BagKeys.THUMBNAIL_ORIGIN].tolist())
        thumbnail = Thumbnail(bag[BagKeys.THUMBNAIL].numpy(), float(bag[BagKeys.THUMBNAIL_DOWNSAMPLE]), origin)
        figures.append(plot_slide_overlay(thumbnail, bag[BagKeys.HEATMAP]))
    if BagKeys.TOP_TILES in bag:
        ratios = attention_ratio(bag[SCORES])[bag[BagKeys.TOP].numpy()]
        tiles = bag[BagKeys.TOP_TILES].numpy()
        figures.append(plot_tile_montage(tiles, tiles[:0], ratios, ratios[:0]))
    return [to_jpeg(figure, DPI) for figure in figures]
