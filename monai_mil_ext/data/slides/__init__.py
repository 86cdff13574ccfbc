"""Whole-slide images: files, tiles, tissue and result files."""

from .dicom_slides import find_dicom_slides
from .heatmap_files import write_heatmap_tiff, write_tile_geojson
from .slide_cache import SlideCache
from .slide_errors import SlideFileError
from .slide_file import SlideFile, Thumbnail
from .slide_tiles import SlideTiles
from .tile_grid import TileGrid
from .tissue.otsu_tissue import OtsuTissue
from .tissue.segmenter_tissue import SegmenterTissue
from .tissue.tissue_map import TissueLabel, TissueMap, find_tissue, tissue_fraction

__all__ = [
    "OtsuTissue",
    "SegmenterTissue",
    "SlideCache",
    "SlideFile",
    "SlideFileError",
    "SlideTiles",
    "Thumbnail",
    "TileGrid",
    "TissueLabel",
    "TissueMap",
    "find_dicom_slides",
    "find_tissue",
    "tissue_fraction",
    "write_heatmap_tiff",
    "write_tile_geojson",
]
