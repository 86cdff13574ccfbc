"""Utilities of all other packages: keys of a bag, argument checks, probabilities and atomic file writes."""

from .bag_items import drop_padding, head_mean
from .checks import (
    EmptyBagError,
    SourceMismatchError,
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
from .probabilities import (
    check_class_names,
    check_probabilities,
    class_probabilities,
    format_prediction,
    logits_to_probabilities,
    predicted_classes,
)

__all__ = [
    "RESEARCH_USE",
    "BagKeys",
    "BagStatus",
    "EmptyBagError",
    "SourceMismatchError",
    "atomic_path",
    "check_bags",
    "check_choice",
    "check_class_names",
    "check_count",
    "check_mask",
    "check_name",
    "check_positive",
    "check_positive_number",
    "check_probabilities",
    "check_rate",
    "class_probabilities",
    "drop_padding",
    "format_prediction",
    "head_mean",
    "logits_to_probabilities",
    "optional_dependency",
    "predicted_classes",
    "print_root_cause",
    "remove_stale_files",
    "write_csv",
    "write_json",
]
