"""Utilities of all other packages: keys of a bag, argument checks and atomic file writes."""

from .bag_items import drop_padding, head_mean
from .checks import (
    EmptyBagError,
    check_bags,
    check_choice,
    check_count,
    check_mask,
    check_name,
    check_positive,
    check_positive_number,
    check_rate,
)
from .enums import RESEARCH_USE, BagKeys, BagStatus
from .exceptions import print_root_cause
from .files import atomic_path, remove_stale_files, write_csv, write_json
from .optional import optional_dependency
from .privacy import hide_paths

__all__ = [
    "RESEARCH_USE",
    "BagKeys",
    "BagStatus",
    "EmptyBagError",
    "atomic_path",
    "check_bags",
    "check_choice",
    "check_count",
    "check_mask",
    "check_name",
    "check_positive",
    "check_positive_number",
    "check_rate",
    "drop_padding",
    "head_mean",
    "hide_paths",
    "optional_dependency",
    "print_root_cause",
    "remove_stale_files",
    "write_csv",
    "write_json",
]
