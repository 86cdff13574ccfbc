"""Report of a study: values with intervals, comparisons, figures, tables and text."""

from .page import ReportFacts, case_errors, case_picture, case_rows, write_report

__all__ = [
    "ReportFacts",
    "case_errors",
    "case_picture",
    "case_rows",
    "write_report",
]
