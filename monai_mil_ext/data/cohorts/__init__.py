"""Cohorts: tables, checks, splits and lists of cases."""

from .case_lists import list_scans, single_case
from .check_report import CohortReport
from .cohort import check_cohort, load_cohort, load_scan_cohort, load_slide_cohort
from .cohort_checks import CohortChecks
from .columns import CohortColumns
from .scan_checks import ScanChecks
from .slide_lists import list_bags, list_slides
from .split_files import load_splits
from .splits import CohortSplits, split_cohort
from .tables.pseudonyms import pseudonymize
from .tables.study_table import StudyLabels, study_columns

__all__ = [
    "CohortChecks",
    "CohortColumns",
    "CohortReport",
    "CohortSplits",
    "ScanChecks",
    "StudyLabels",
    "check_cohort",
    "list_bags",
    "list_scans",
    "list_slides",
    "load_cohort",
    "load_scan_cohort",
    "load_slide_cohort",
    "load_splits",
    "pseudonymize",
    "single_case",
    "split_cohort",
    "study_columns",
]
