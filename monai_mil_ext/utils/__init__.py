"""Utilities of all other packages: keys of a bag, argument checks and atomic file writes."""

from .bag_items import drop_padding, head_mean
from .causes import end_with_root_cause, root_cause
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
from .extras import import_extra
from .files import atomic_path, remove_stale_files, write_csv, write_json
from .network_file import check_network, write_network
from .overrides import check_overrides
from .settings_file import read_settings

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
    "check_network",
    "check_overrides",
    "check_positive",
    "check_positive_number",
    "check_rate",
    "drop_padding",
    "end_with_root_cause",
    "head_mean",
    "import_extra",
    "read_settings",
    "remove_stale_files",
    "root_cause",
    "write_csv",
    "write_json",
    "write_network",
]
