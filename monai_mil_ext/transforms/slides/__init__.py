"""Transforms between whole-slide images and bags of tiles."""

from .read_tiles import ReadTilesD, ReadTilesd, ReadTilesDict
from .scores_to_heatmap import TileScoresToHeatmap, TileScoresToHeatmapD, TileScoresToHeatmapd, TileScoresToHeatmapDict
from .slide_features import SlideFeaturesD, SlideFeaturesd, SlideFeaturesDict
from .tile_bag import TileBag, TileBagD, TileBagd, TileBagDict, TiledSlide

__all__ = [
    "ReadTilesD",
    "ReadTilesDict",
    "ReadTilesd",
    "SlideFeaturesD",
    "SlideFeaturesDict",
    "SlideFeaturesd",
    "TileBag",
    "TileBagD",
    "TileBagDict",
    "TileBagd",
    "TileScoresToHeatmap",
    "TileScoresToHeatmapD",
    "TileScoresToHeatmapDict",
    "TileScoresToHeatmapd",
    "TiledSlide",
]
