"""Bags of instance features: files in many formats, batches and statistics."""

from .bag_file import OpenBag, inspect_bag, open_bag, read_bag, write_bag
from .bag_layout import BagInfo
from .bag_rows import BagFileError
from .batch_sampler import BagBatchSampler, bag_sizes
from .collate import BagCollate
from .feature_statistics import FeatureStatistics
from .instance_source import InstanceSource, SourceDifference

__all__ = [
    "BagBatchSampler",
    "BagCollate",
    "BagFileError",
    "BagInfo",
    "FeatureStatistics",
    "InstanceSource",
    "OpenBag",
    "SourceDifference",
    "bag_sizes",
    "inspect_bag",
    "open_bag",
    "read_bag",
    "write_bag",
]
