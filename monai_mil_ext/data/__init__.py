"""Bags, slides, scans and cohorts: readers, writers, datasets and batches."""

from .bag_file import OpenBag, inspect_bag, open_bag, read_attributes, read_bag, write_bag
from .bag_layout import BagInfo
from .bag_rows import BagFileError
from .bag_sampler import BagBatchSampler, bag_sizes
from .cell_images import CellImages
from .chunk_loader import ChunkLoader
from .cohort import check_cohort, load_cohort
from .cohort_checks import CohortChecks
from .cohort_columns import CohortColumns
from .cohort_report import CohortReport
from .collate import BagCollate
from .dicom_results import DicomResults
from .dicom_series import SeriesSlice, find_series, series_affine
from .drawn_bags import DrawnBags
from .feature_cache import FeatureCache
from .feature_run import FeatureRun
from .fingerprints import fingerprint
from .mask_file import find_marks, read_marks
from .scan_reader import ScanReader
from .scan_table import load_scans
from .shifted_mean import ShiftedMeanBags
from .slice_bands import SliceBands
from .slide_cache import SlideCache
from .slide_cohort import load_slide_cohort
from .slide_file import SlideFile, SlideFileError, Thumbnail
from .slide_grid import TileGrid
from .slide_list import find_slides, is_feature_file
from .slide_results import write_heatmap_tiff, write_tile_geojson
from .slide_tiles import SlideTiles
from .splits import CohortSplits, split_cohort
from .standardization import FeatureStatistics
from .tissue import OtsuTissue, tissue_share
from .volume_file import write_volume

__all__ = [
    "BagBatchSampler",
    "BagCollate",
    "BagFileError",
    "BagInfo",
    "CellImages",
    "ChunkLoader",
    "CohortChecks",
    "CohortColumns",
    "CohortReport",
    "CohortSplits",
    "DicomResults",
    "DrawnBags",
    "FeatureCache",
    "FeatureRun",
    "FeatureStatistics",
    "OpenBag",
    "OtsuTissue",
    "ScanReader",
    "SeriesSlice",
    "ShiftedMeanBags",
    "SliceBands",
    "SlideCache",
    "SlideFile",
    "SlideFileError",
    "SlideTiles",
    "Thumbnail",
    "TileGrid",
    "bag_sizes",
    "check_cohort",
    "find_marks",
    "find_series",
    "find_slides",
    "fingerprint",
    "inspect_bag",
    "is_feature_file",
    "load_cohort",
    "load_scans",
    "load_slide_cohort",
    "open_bag",
    "read_attributes",
    "read_bag",
    "read_marks",
    "series_affine",
    "split_cohort",
    "tissue_share",
    "write_bag",
    "write_heatmap_tiff",
    "write_tile_geojson",
    "write_volume",
]
