"""Figures."""

from .cine import write_cine
from .page import scan_page
from .slice_scores import plot_slice_scores

__all__ = ["plot_slice_scores", "scan_page", "write_cine"]
