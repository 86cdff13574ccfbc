"""Folds of a study: by patient, by site, or fixed, with notes on what can bias them."""

from .fold_plan import FoldPlan

__all__ = ["FoldPlan"]
