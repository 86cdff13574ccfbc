"""Page of the report of a study."""

from .report_cases import case_errors, case_picture, case_rows
from .report_facts import ReportFacts
from .study_report import write_report

__all__ = [
    "ReportFacts",
    "case_errors",
    "case_picture",
    "case_rows",
    "write_report",
]
