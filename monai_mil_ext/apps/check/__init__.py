"""Check of a cohort before anything is computed, from headers alone."""

from .check_settings import CheckSettings
from .encoding_estimate import EncodingEstimate, EncodingPlan
from .table_check import TableCheck, check_items, check_table

__all__ = ["CheckSettings", "EncodingEstimate", "EncodingPlan", "TableCheck", "check_items", "check_table"]
