"""Report of a study: statistics of its methods and the page that shows them."""

from .comparisons import compare_methods
from .method_summary import summarize_method
from .page import ReportFacts, case_errors, case_picture, case_rows, write_report

__all__ = [
    "ReportFacts",
    "case_errors",
    "case_picture",
    "case_rows",
    "compare_methods",
    "summarize_method",
    "write_report",
]
