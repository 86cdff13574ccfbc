"""Whole-slide images: files, tiles, tissue and result files."""

from .heatmap_files import write_heatmap_tiff, write_tile_geojson
from .slide_cache import SlideCache
from .slide_file import SlideFile, SlideFileError, Thumbnail
from .slide_tiles import SlideTiles
from .tile_grid import TileGrid
from .tissue import OtsuTissue, TissueLabel, tissue_fraction

__all__ = [
    "OtsuTissue",
    "SlideCache",
    "SlideFile",
    "SlideFileError",
    "SlideTiles",
    "Thumbnail",
    "TileGrid",
    "TissueLabel",
    "tissue_fraction",
    "write_heatmap_tiff",
    "write_tile_geojson",
]
