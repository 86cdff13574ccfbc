"""Whole-slide images: files, tiles, tissue and result files."""

from .dicom_slides import find_dicom_slides
from .heatmap_files import write_heatmap_tiff, write_tile_geojson
from .slide_cache import SlideCache
from .slide_errors import SlideFileError
from .slide_file import SlideFile, Thumbnail
from .slide_tiles import SlideTiles
from .tile_grid import TileGrid
from .tissue import OtsuTissue, tissue_fraction

__all__ = [
    "OtsuTissue",
    "SlideCache",
    "SlideFile",
    "SlideFileError",
    "SlideTiles",
    "Thumbnail",
    "TileGrid",
    "find_dicom_slides",
    "tissue_fraction",
    "write_heatmap_tiff",
    "write_tile_geojson",
]
