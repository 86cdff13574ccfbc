"""Scans and bags on disk, and bags in batches."""

from .bag_file import OpenBag, inspect_bag, open_bag, read_attributes, read_bag, write_bag
from .bag_layout import BagInfo
from .bag_rows import BagFileError
from .bag_sampler import BagBatchSampler, bag_sizes
from .cohort import check_cohort, load_cohort
from .cohort_checks import CohortChecks
from .cohort_columns import CohortColumns
from .cohort_report import CohortReport
from .collate import BagCollate
from .dicom_series import SeriesSlice, find_series
from .feature_cache import FeatureCache
from .fingerprints import fingerprint
from .scan_reader import ScanReader
from .shifted_mean import ShiftedMeanBags
from .splits import CohortSplits, split_cohort
from .volume_file import write_volume

__all__ = [
    "BagBatchSampler",
    "BagCollate",
    "BagFileError",
    "BagInfo",
    "CohortChecks",
    "CohortColumns",
    "CohortReport",
    "CohortSplits",
    "FeatureCache",
    "OpenBag",
    "ScanReader",
    "SeriesSlice",
    "ShiftedMeanBags",
    "bag_sizes",
    "check_cohort",
    "find_series",
    "fingerprint",
    "inspect_bag",
    "load_cohort",
    "open_bag",
    "read_attributes",
    "read_bag",
    "split_cohort",
    "write_bag",
    "write_volume",
]
