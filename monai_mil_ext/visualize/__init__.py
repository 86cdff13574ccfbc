"""Figures."""

from .slice_scores import plot_slice_scores

__all__ = ["plot_slice_scores"]
