"""Report of a study: statistics of its methods and the page that shows them."""

from .comparisons import compare_methods
from .method_summary import summarize_method

__all__ = ["compare_methods", "summarize_method"]
