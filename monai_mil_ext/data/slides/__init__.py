"""Whole-slide images: files, tiles, tissue and result files."""

from . import tissue
from .heatmap_files import write_heatmap_tiff, write_tile_geojson
from .slide_cache import SlideCache
from .slide_file import SlideFile, SlideFileError, Thumbnail
from .slide_tiles import SlideTiles
from .tile_grid import TileGrid
from .tissue import *

__all__ = [
    "SlideCache",
    "SlideFile",
    "SlideFileError",
    "SlideTiles",
    "Thumbnail",
    "TileGrid",
    "write_heatmap_tiff",
    "write_tile_geojson",
]
__all__ += tissue.__all__
