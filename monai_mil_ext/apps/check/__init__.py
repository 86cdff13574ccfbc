"""Check of a cohort before anything is computed, from headers alone."""

from .check_settings import CheckSettings
from .encoding_estimate import EncodingEstimate, EncodingPlan
from .study_check import CheckedItems, check_study_items, load_checked
from .table_check import TableCheck, check_items, check_table

__all__ = [
    "CheckSettings",
    "CheckedItems",
    "EncodingEstimate",
    "EncodingPlan",
    "TableCheck",
    "check_items",
    "check_study_items",
    "check_table",
    "load_checked",
]
