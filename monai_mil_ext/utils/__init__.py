"""Utilities of all other packages: keys of a bag, argument checks, probabilities and atomic file writes."""

from .autocast import without_autocast
from .bag_items import check_case_ids, drop_padding, head_mean
from .checks import (
    EmptyBagError,
    SourceMismatchError,
    as_flag,
    as_range,
    check_bags,
    check_choice,
    check_count,
    check_fraction,
    check_mask,
    check_name,
    check_not_negative,
    check_positions,
    check_positive,
    check_positive_number,
    check_rate,
    count_non_finite,
)
from .enums import RESEARCH_USE, BagKeys, BagStatus
from .exceptions import InputError, print_root_cause
from .files import atomic_path, load_json, remove_stale_files, save_tensors, write_csv, write_json
from .host_values import check_values, is_on_host
from .loggers import keep_loggers, quiet_loggers
from .optional import optional_dependency
from .parallel import run_tasks
from .paths import check_local, check_local_settings, find_file, resolve_path
from .privacy import hide_paths
from .probabilities import (
    check_class_names,
    check_probabilities,
    class_probabilities,
    format_prediction,
    format_times,
    logits_to_probabilities,
    predicted_classes,
    quote_names,
)

__all__ = [
    "RESEARCH_USE",
    "BagKeys",
    "BagStatus",
    "EmptyBagError",
    "InputError",
    "SourceMismatchError",
    "as_flag",
    "as_range",
    "atomic_path",
    "check_bags",
    "check_case_ids",
    "check_choice",
    "check_class_names",
    "check_count",
    "check_fraction",
    "check_local",
    "check_local_settings",
    "check_mask",
    "check_name",
    "check_not_negative",
    "check_positions",
    "check_positive",
    "check_positive_number",
    "check_probabilities",
    "check_rate",
    "check_values",
    "class_probabilities",
    "count_non_finite",
    "drop_padding",
    "find_file",
    "format_prediction",
    "format_times",
    "head_mean",
    "hide_paths",
    "is_on_host",
    "keep_loggers",
    "load_json",
    "logits_to_probabilities",
    "optional_dependency",
    "predicted_classes",
    "print_root_cause",
    "quiet_loggers",
    "quote_names",
    "remove_stale_files",
    "resolve_path",
    "run_tasks",
    "save_tensors",
    "without_autocast",
    "write_csv",
    "write_json",
]
